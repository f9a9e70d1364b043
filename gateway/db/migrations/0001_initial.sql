-- Money is BIGINT micros (millionths of a US dollar), time is BIGINT Unix seconds (UTC),
-- a fact that may not have happened yet is a nullable *_at. BIGINT and TEXT only: this text runs
-- unchanged on SQLite and PostgreSQL.

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    archived_at BIGINT
);

-- Virtual keys: the value itself is never stored, only its SHA-256 and what is needed to show it.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    value_sha256 TEXT NOT NULL UNIQUE,
    value_hint TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE INDEX keys_by_project ON keys (project_id, created_at, id);

-- The limit that a balance is opened with. The limit in force stands on the balance itself.
CREATE TABLE budgets (
    level TEXT NOT NULL CHECK (level IN ('organization', 'project', 'key')),
    level_id TEXT NOT NULL,
    period TEXT NOT NULL CHECK (period IN ('day', 'month', 'total')),
    limit_micros BIGINT NOT NULL CHECK (limit_micros >= 0),
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (level, level_id, period)
);

-- One row per level and period, budget or not: id is level:level_id:period:start.
CREATE TABLE balances (
    id TEXT PRIMARY KEY,
    level TEXT NOT NULL,
    level_id TEXT NOT NULL,
    period TEXT NOT NULL,
    period_start TEXT NOT NULL,
    limit_micros BIGINT,
    spent_micros BIGINT NOT NULL,
    held_micros BIGINT NOT NULL CHECK (held_micros >= 0)
);

CREATE INDEX balances_by_level ON balances (level, level_id, period, period_start);

-- What was asked for, at which rate, and how it ended. accounting_day is the UTC day of the hold;
-- with project and key it names the nine balances that the hold touched, and settle and release
-- touch exactly those.
CREATE TABLE holds (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    key_id TEXT NOT NULL REFERENCES keys (id),
    accounting_day TEXT NOT NULL,
    operation TEXT NOT NULL,
    model TEXT NOT NULL,
    size TEXT NOT NULL,
    clip_seconds BIGINT NOT NULL,
    unit TEXT NOT NULL,
    rate_micros BIGINT NOT NULL CHECK (rate_micros >= 0),
    rate_card_sha256 TEXT NOT NULL,
    images_micros BIGINT NOT NULL CHECK (images_micros >= 0),
    moderated_is_billed BIGINT NOT NULL CHECK (moderated_is_billed IN (0, 1)),
    amount_micros BIGINT NOT NULL CHECK (amount_micros >= 0),
    state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'released')),
    settled_micros BIGINT,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);

CREATE INDEX holds_by_day ON holds (accounting_day, project_id);

-- Append-only. held_micros and spent_micros are signed changes; the sum over all entries of the
-- holds that touched a balance is that balance. A hold has one opening entry (id: hold id/hold)
-- and at most one end, settle or release (id: hold id/end): the primary key says so.
CREATE TABLE entries (
    id TEXT PRIMARY KEY,
    hold_id TEXT NOT NULL REFERENCES holds (id),
    kind TEXT NOT NULL CHECK (kind IN ('hold', 'settle', 'release', 'adjust')),
    held_micros BIGINT NOT NULL,
    spent_micros BIGINT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX entries_by_hold ON entries (hold_id);

CREATE INDEX entries_by_time ON entries (created_at, id);

-- due_at is when somebody has to look at the row again: the end of the submit lease while a submit
-- is under way, then the next poll, NULL when nothing is left to be done. A claim moves it to the
-- end of the claimer's lease and increments claim_number, which fences every write of the claim.
-- object is the video as clients see it (JSON); fields are the checked parameters (JSON). A
-- character is made by the same billable step, so it has a row of the same form.
CREATE TABLE videos (
    id TEXT PRIMARY KEY,
    hold_id TEXT NOT NULL UNIQUE REFERENCES holds (id),
    project_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    upstream TEXT NOT NULL,
    upstream_id TEXT,
    kind TEXT NOT NULL CHECK (kind IN ('video', 'character')),
    fields TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'in_progress', 'completed', 'failed')),
    object TEXT,
    created_at BIGINT NOT NULL,
    submit_lease_ends_at BIGINT NOT NULL,
    recorded_at BIGINT,
    refused_at BIGINT,
    orphaned_at BIGINT,
    orphan_reason TEXT,
    completed_at BIGINT,
    failed_at BIGINT,
    expires_at BIGINT,
    deleted_at BIGINT,
    polled_at BIGINT,
    missing_polls BIGINT NOT NULL,
    due_at BIGINT,
    claim_number BIGINT NOT NULL,
    provider_request_id TEXT,
    relay_request_id TEXT
);

CREATE INDEX videos_by_upstream_id ON videos (upstream_id, project_id);

CREATE INDEX videos_by_project ON videos (project_id, created_at, id);

CREATE INDEX videos_due ON videos (due_at) WHERE due_at IS NOT NULL;

CREATE INDEX videos_orphaned ON videos (orphaned_at) WHERE orphaned_at IS NOT NULL;

-- The first video that an upstream gave an id to owns it: a second one is an orphan.
CREATE TABLE upstream_ids (
    upstream TEXT NOT NULL,
    upstream_id TEXT NOT NULL,
    video_id TEXT NOT NULL REFERENCES videos (id),
    PRIMARY KEY (upstream, upstream_id)
);

-- One row per variant of a completed video; id is also its key in the store.
CREATE TABLE assets (
    id TEXT PRIMARY KEY,
    video_id TEXT NOT NULL REFERENCES videos (id),
    variant TEXT NOT NULL CHECK (variant IN ('video', 'thumbnail', 'spritesheet')),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    content_type TEXT,
    size_bytes BIGINT,
    sha256 TEXT,
    mirrored_at BIGINT,
    gone_at BIGINT,
    attempts BIGINT NOT NULL,
    failure TEXT,
    due_at BIGINT,
    claim_number BIGINT NOT NULL,
    UNIQUE (video_id, variant)
);

CREATE INDEX assets_due ON assets (due_at) WHERE due_at IS NOT NULL;

-- Which request made which video, so that the same request sent again is answered and not bought
-- again. fields_sha256 is over the parsed parameters and the file's bytes. answer is the body of
-- the first answer; left_at says that its client was gone before it could be sent; retry_count is
-- the last retry of an SDK that was answered with this attempt.

CREATE TABLE attempts (
    video_id TEXT PRIMARY KEY REFERENCES videos (id),
    project_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    idempotency_key TEXT,
    fields_sha256 TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    answer TEXT,
    left_at BIGINT,
    retry_count BIGINT NOT NULL
);

CREATE UNIQUE INDEX attempts_by_idempotency_key ON attempts (project_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

CREATE INDEX attempts_by_fields ON attempts (key_id, fields_sha256, created_at);
