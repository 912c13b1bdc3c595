import cliProgress from 'cli-progress';

/** Without a terminal a line each so many milliseconds tells how far it is. */
const LINE_EVERY_MS = 2_000;

/** How far a long step is: a bar in a terminal, a line now and then anywhere else. */
export class Progress {
  #bar: cliProgress.SingleBar | undefined;
  #toldAt = -Infinity;
  constructor(readonly title: string) {}

  /** `details` are shown beside the share that `done` is of `total`. */
  show(done: number, total: number, details: string): void {
    const share = total > 0 ? Math.min(1, done / total) : 0;
    if (!process.stdout.isTTY) {
      if (performance.now() - this.#toldAt < LINE_EVERY_MS) return;
      this.#toldAt = performance.now();
      console.log(`${this.title}: ${Math.floor(share * 100)} %, ${details}`);
      return;
    }
    if (!this.#bar) {
      this.#bar = new cliProgress.SingleBar(
        { format: '{title} {bar} {percentage} %  {details}', hideCursor: true, clearOnComplete: true },
        cliProgress.Presets.shades_classic,
      );
      this.#bar.start(1, 0, { title: this.title, details });
    }
    this.#bar.update(share, { title: this.title, details });
  }

  /** Takes the bar away. */
  end(): void {
    this.#bar?.stop();
  }
}
