import { Body, Controller, Get, Header, HttpCode, Inject, Post, Req } from '@nestjs/common';
import { IsString, Matches, MaxLength, MinLength } from 'class-validator';
import type { FastifyRequest } from 'fastify';
import {
  type ApiToken,
  EMAIL_PATTERN,
  findApiToken,
  findUser,
  type Grant,
  Logins,
  LONGEST_EMAIL,
  LONGEST_PASSWORD,
  type Origin,
  requirePerson,
  Sessions,
} from '@atomo-cc/access';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import { apiError } from '@atomo-cc/kernel';
import { principalOf, Public } from './bearer.guard.js';

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

/** The body of POST /auth/password. */
export class PasswordBody {
  @IsString({ message: 'currentPassword is missing, or is not text' })
  @MaxLength(LONGEST_PASSWORD, { message: `currentPassword is longer than ${LONGEST_PASSWORD} characters` })
  currentPassword!: string;

  @IsString({ message: 'newPassword is missing, or is not text' })
  @MaxLength(LONGEST_PASSWORD, { message: `newPassword is longer than ${LONGEST_PASSWORD} characters` })
  newPassword!: string;
}

/** Login, refresh, logout, another password, and who one is. One's sessions are listed and ended by GraphQL. */
@Controller('auth')
export class AuthController {
  constructor(
    @Inject(Logins) private readonly logins: Logins,
    @Inject(Sessions) private readonly sessions: Sessions,
    @Inject(AppDatabase) private readonly database: AppDatabase,
  ) {}

  @Public()
  @Post('login')
  @HttpCode(200)
  @Header('cache-control', 'no-store')
  login(@Body() body: LoginBody, @Req() request: FastifyRequest): Promise<Grant> {
    return this.logins.login(body, originOf(request));
  }

  @Public()
  @Post('refresh')
  @HttpCode(200)
  @Header('cache-control', 'no-store')
  refresh(@Body() body: RefreshBody, @Req() request: FastifyRequest): Promise<Grant> {
    return this.sessions.refresh(body.refreshToken, originOf(request));
  }

  @Post('logout')
  @HttpCode(204)
  async logout(@Req() request: FastifyRequest): Promise<void> {
    await this.sessions.logout(requirePerson(principalOf(request)), originOf(request));
  }

  @Post('logout-everywhere')
  @HttpCode(204)
  async logoutEverywhere(@Req() request: FastifyRequest): Promise<void> {
    await this.sessions.logoutEverywhere(requirePerson(principalOf(request)), originOf(request));
  }

  @Post('password')
  @HttpCode(204)
  async changePassword(@Body() body: PasswordBody, @Req() request: FastifyRequest): Promise<void> {
    await this.logins.changePassword(requirePerson(principalOf(request)), body, originOf(request));
  }

  @Get('me')
  async me(@Req() request: FastifyRequest): Promise<Grant['user'] | ApiToken> {
    const { tenantId, userId, tokenId } = principalOf(request);
    if (tokenId !== undefined) {
      const token = await this.database.transaction(tenantId, (tx) => findApiToken(tx, tokenId));
      if (!token) throw apiError('NOT_FOUND', 'This token is no more.');
      return token;
    }
    const user = userId && (await this.database.transaction(tenantId, (tx) => findUser(tx, userId)));
    if (!user) throw apiError('NOT_FOUND', 'This user is no more.');
    return { id: user.id, email: user.email, name: user.name, role: user.role };
  }
}

function originOf(request: FastifyRequest): Origin {
  const userAgent = request.headers['user-agent'];
  return { address: request.ip, requestId: request.id, ...(userAgent !== undefined && { userAgent }) };
}
