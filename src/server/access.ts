/**
 * Who may call what: bearer tokens with tenants, groups and models, and groups restricted by a header as in Triton.
 *
 * Tokens are kept as SHA-256 only and compared without telling by time how much of one was right. The group `health` needs
 * no token, so that probes work; what it tells about single models is told only to those who may use them.
 */
import type { ApiGroup } from '#core/api-group.js';
import { intarsiaError } from '#core/errors.js';
import { anonymousTenant, tenantId, type TenantId } from '#core/ids.js';
import type { SloClass } from '#core/scheduling/slo-class.js';
import type { Access, Caller, Transport } from '#ports/inference-gateway.js';

export interface TokenGrant {
  /** SHA-256 of the token, 64 lower-case hexadecimal digits. */
  readonly sha256: string;
  readonly tenant: string;
  readonly groups: readonly ApiGroup[];
  /** Exact names, or prefixes ending in `*`. */
  readonly models: readonly string[];
  /** SLO class and target in ms of the tenant's requests that name none. */
  readonly sloClass?: SloClass;
  readonly sloMs?: number;
}

export interface AccessOptions {
  /** Empty: everybody may do everything that is not restricted. */
  readonly tokens: readonly TokenGrant[];
  /** A group with rows here needs one of their headers. */
  readonly restricted: readonly { readonly group: ApiGroup; readonly header: string; readonly value: string }[];
  /** SHA-256 of a text in lower-case hexadecimal. */
  readonly sha256: (text: string) => string;
}

interface Grant {
  readonly sha256: string;
  readonly groups: ReadonlySet<ApiGroup>;
  readonly caller: Caller;
}

/** Longest token looked at; longer ones are unknown without being hashed. */
const tokenLengthMax = 4096;

const everybody: Caller = { tenant: anonymousTenant, namesTenant: true, mayUse: () => true };
const nobody: Caller = { tenant: anonymousTenant, namesTenant: false, mayUse: () => false };

export function createAccess(options: AccessOptions): Access {
  const grants = options.tokens.map(grantOf);
  const restricted = new Map<ApiGroup, { readonly header: string; readonly value: string }[]>();
  for (const { group, header, value } of options.restricted) {
    restricted.set(group, [...(restricted.get(group) ?? []), { header: header.toLowerCase(), value }]);
  }
  return {
    authorize(group, transport, header) {
      if (restricted.size > 0) checkRestriction(restricted.get(group), transport, header);
      if (grants.length === 0) return everybody;
      const authorization = header('authorization');
      if (authorization === undefined) {
        if (group === 'health') return nobody;
        throw intarsiaError(
          'UNAUTHENTICATED',
          'a bearer token is required: send the header "authorization: Bearer <token>"',
        );
      }
      const grant = grantFor(authorization, grants, options.sha256);
      if (grant === undefined) throw intarsiaError('UNAUTHENTICATED', 'the bearer token is not known to this host');
      if (!grant.groups.has(group)) {
        throw intarsiaError('PERMISSION_DENIED', `the token may not use the group '${group}' of the API`, { group });
      }
      return grant.caller;
    },
  };
}

function checkRestriction(
  rows: readonly { readonly header: string; readonly value: string }[] | undefined,
  transport: Transport,
  header: (name: string) => string | undefined,
): void {
  const [first] = rows ?? [];
  if (rows === undefined || first === undefined) return;
  const prefix = transport === 'grpc' ? 'triton-grpc-protocol-' : '';
  for (const row of rows) if (equalInConstantTime(header(prefix + row.header) ?? '', row.value)) return;
  throw intarsiaError('PERMISSION_DENIED', `This protocol is restricted, expecting header '${prefix}${first.header}'`, {
    header: prefix + first.header,
  });
}

function grantFor(
  authorization: string,
  grants: readonly Grant[],
  sha256: (text: string) => string,
): Grant | undefined {
  const token = /^bearer +(\S+) *$/i.exec(authorization)?.[1];
  if (token === undefined || token.length > tokenLengthMax) return undefined;
  const digest = sha256(token);
  let found: Grant | undefined;
  for (const grant of grants) if (equalInConstantTime(digest, grant.sha256)) found = grant;
  return found;
}

/** Looks at every character of equally long texts, whatever the first difference. */
function equalInConstantTime(left: string, right: string): boolean {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (let index = 0; index < left.length; index += 1) difference |= left.charCodeAt(index) ^ right.charCodeAt(index);
  return difference === 0;
}

function grantOf(token: TokenGrant): Grant {
  const tenant: TenantId = tenantId(token.tenant);
  const { sloClass, sloMs = 0 } = token;
  const slo = sloClass === undefined && sloMs === 0 ? {} : { slo: { sloClass, sloMs } };
  return {
    sha256: token.sha256,
    groups: new Set(token.groups),
    caller: { tenant, namesTenant: false, mayUse: modelFilter(token.models), ...slo },
  };
}

function modelFilter(patterns: readonly string[]): (model: string) => boolean {
  if (patterns.includes('*')) return () => true;
  const exact = new Set(patterns.filter((pattern) => !pattern.endsWith('*')));
  const prefixes = patterns.filter((pattern) => pattern.endsWith('*')).map((pattern) => pattern.slice(0, -1));
  return (model) => exact.has(model) || prefixes.some((prefix) => model.startsWith(prefix));
}
