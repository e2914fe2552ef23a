// What the admin interface answers; docs/http-api.md describes it.

export interface Device {
  id: string;
  online: boolean;
  version: string | null;
  version_from: string | null;
  state: string | null;
  reason: string | null;
  next_attempt: number | null;
  progress: { chunks_sent: number; chunks_total: number; bytes_per_second: number | null };
  stalled: string | null;
  firmware: {
    title: string | null;
    version: string;
    digest: string;
    chunk_size: number;
    attempt: number;
  } | null;
  registered: boolean;
  groups: string[];
  labels: Record<string, string>;
  model: string | null;
  title: string | null;
  dialect: string | null;
  protocol: string | null;
  address: string | null;
  client_id: string | null;
  last_seen: number | null;
}

export interface Why {
  sentence: string;
  deployment: string | null;
  state: string | null;
}

export interface Happening {
  id: string;
  at: number;
  action: string;
  detail: string | null;
  deployment: string | null;
}

export interface Decided {
  value: string;
  from: string;
}

export interface Firmware {
  id: string;
  path: string;
  state: string;
  reason: string | null;
  title: Decided | null;
  version: Decided | null;
  model: Decided | null;
  min_version: string | null;
  notes: string | null;
  target: string | null;
  deployments: string[];
  digest: string | null;
  size: number | null;
  created: number | null;
  warnings?: string[];
  format?: string | null;
  chip?: string | null;
  hardware?: string[];
  security_counter?: number | null;
  signature?: { state: string; key: string | null; embedded: boolean } | null;
  dropped_digest?: string | null;
  [more: string]: unknown;
}

/** Why a file is not offered, or what to know of it. That nobody deployed an upload yet is none. */
export function warning(file: Firmware): string | null {
  return file.state === "catalogued" ? null : file.reason;
}

/** All that is worth a look before it is deployed, a sentence each. */
export function warnings(file: Firmware): string[] {
  const reason = warning(file);
  const all = [...(reason === null ? [] : [reason]), ...(file.warnings ?? [])];
  return [...new Set(all)];
}

export interface Target {
  all?: boolean;
  device?: string;
  group?: string;
  model?: string;
  labels?: string;
  rollback?: string;
}

export type Wave = { count: number } | { percent: number };

export interface Deployment {
  id: string;
  state: string;
  reason: string | null;
  firmware: {
    id: string;
    path: string;
    title: string | null;
    version: string;
    digest: string;
    size: number;
  };
  target: Target;
  downgrade: boolean;
  rollout: { waves: Wave[]; pause_at_percent: number | null };
  wave: number;
  wave_size: number;
  created: number;
  created_by: string;
  windows?: string[];
  limits?: Record<string, number | string>;
  counts: Record<string, number>;
  not_offered?: number;
  complete?: boolean;
}

export interface Member {
  device: string;
  state: string | null;
  reason: string | null;
  wave: number | null;
  at: number | null;
}

export interface Excluded {
  device: string;
  reason: string;
}

export interface Plan {
  devices: string[];
  excluded: Excluded[];
  bytes: number;
  seconds: number | null;
  waves: number[];
}

export interface Fleet {
  versions: { title: string | null; version: string | null; devices: number; online: number }[];
  other_versions: number;
  groups: { name: string; devices: number }[];
  models: { name: string; devices: number }[];
  labels: { name: string; devices: number }[];
  deployments: Record<string, number>;
}

export interface Status {
  version: string;
  uptime_seconds: number;
  ready: boolean;
  checks: { name: string; ok: boolean; reason?: string }[];
  broker: Record<string, number>;
  fuota: {
    window_closed?: string | null;
    clock_problem?: string | null;
    devices: { total: number; registered: number; online: number };
    states: Record<string, number>;
    firmware: Record<string, number>;
    blocks: number;
    block_bytes: number;
    failed_logins: number;
    refused: number;
    errors: number;
  };
}

export interface Client {
  id: string;
  connected: boolean;
  name: string | null;
  role: string;
  protocol: string;
  address: string | null;
  since_seconds: number;
  idle_seconds: number | null;
  queued_messages: number;
  queued_bytes: number;
  inflight: number;
  subscription_count: number;
  subscriptions?: { filter: string; qos: number }[];
}

export interface AuditLine {
  id: string;
  at: number;
  actor: string | null;
  origin: string | null;
  subject: string;
  action: string;
  detail: string | null;
}

export interface Freeze {
  frozen: boolean;
  at?: number;
  by?: string;
}
