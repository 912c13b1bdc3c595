/**
 * Something the user has to know or to change: its message is one whole sentence that is shown alone, without a stack, and
 * the command ends with exit code 1. Anything else that is thrown is a defect of ours and keeps its stack.
 */
export class Refusal extends Error {
  override name = 'Refusal';
}

/** What went wrong, in one line, whatever was thrown (also an AggregateError without a message, as Node's connect gives). */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  if (error instanceof Error) return (error.message || error.name).split('\n')[0]!;
  return String(error);
}

/** Runs a command to its end; a Refusal becomes its sentence and exit code 1, anything else its stack and exit code 1. */
export async function runCommand(command: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await command();
  } catch (error) {
    console.error(error instanceof Refusal ? error.message : error);
    process.exitCode = 1;
  }
}
