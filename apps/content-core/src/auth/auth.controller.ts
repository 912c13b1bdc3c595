import { Body, Controller, Get, Header, HttpCode, Inject, Post, Req } from '@nestjs/common';
import { IsString, Matches, MaxLength, MinLength } from 'class-validator';
import type { FastifyRequest } from 'fastify';
import { EMAIL_PATTERN, findUser, type Grant, LONGEST_EMAIL, Sessions } from '@atomo-cc/access';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import { apiError } from '@atomo-cc/kernel';
import { principalOf, Public } from './bearer.guard.js';

/** Longer than any passphrase, and far below what would make hashing it work. */
const LONGEST_PASSWORD = 1_024;
/** Ours have 76 characters. */
const LONGEST_REFRESH_TOKEN = 512;

/** The body of POST /auth/login. */
export class LoginBody {
  @IsString({ message: 'email is missing, or is not text' })
  @MaxLength(LONGEST_EMAIL, { message: `email is longer than ${LONGEST_EMAIL} characters` })
  @Matches(EMAIL_PATTERN, { message: 'email is not an e-mail address' })
  email!: string;

  @IsString({ message: 'password is missing, or is not text' })
  @MinLength(1, { message: 'password is empty' })
  @MaxLength(LONGEST_PASSWORD, { message: `password is longer than ${LONGEST_PASSWORD} characters` })
  password!: string;
}

/** The body of POST /auth/refresh. */
export class RefreshBody {
  @IsString({ message: 'refreshToken is missing, or is not text' })
  @MaxLength(LONGEST_REFRESH_TOKEN, { message: 'refreshToken is longer than one of ours' })
  refreshToken!: string;
}

/** Login, refresh, logout, and who one is. */
@Controller('auth')
export class AuthController {
  constructor(
    @Inject(Sessions) private readonly sessions: Sessions,
    @Inject(AppDatabase) private readonly database: AppDatabase,
  ) {}

  @Public()
  @Post('login')
  @HttpCode(200)
  @Header('cache-control', 'no-store')
  login(@Body() body: LoginBody, @Req() request: FastifyRequest): Promise<Grant> {
    const userAgent = request.headers['user-agent'];
    return this.sessions.login(body, { address: request.ip, ...(userAgent === undefined ? {} : { userAgent }) });
  }

  @Public()
  @Post('refresh')
  @HttpCode(200)
  @Header('cache-control', 'no-store')
  refresh(@Body() body: RefreshBody): Promise<Grant> {
    return this.sessions.refresh(body.refreshToken);
  }

  @Post('logout')
  @HttpCode(204)
  async logout(@Req() request: FastifyRequest): Promise<void> {
    await this.sessions.logout(principalOf(request));
  }

  @Get('me')
  async me(@Req() request: FastifyRequest): Promise<Grant['user']> {
    const { tenantId, userId } = principalOf(request);
    const user = await this.database.transaction(tenantId, (tx) => findUser(tx, userId));
    if (!user) throw apiError('NOT_FOUND', 'This user is no more.');
    return { id: user.id, email: user.email, name: user.name, role: user.role };
  }
}
