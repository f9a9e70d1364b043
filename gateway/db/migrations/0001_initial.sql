-- Money is BIGINT micros (millionths of a US dollar), time is BIGINT Unix seconds (UTC),
-- a fact that may not have happened yet is a nullable *_at. BIGINT and TEXT only: this text runs
-- unchanged on SQLite and PostgreSQL.

-- Names need not be unique, as at OpenAI; ids are.
CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    archived_at BIGINT
);

CREATE INDEX projects_by_name ON projects (name, created_at);

CREATE INDEX projects_by_time ON projects (created_at, id);

-- Who holds keys. An account with the role none has no access until it is given another role.
CREATE TABLE service_accounts (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner', 'member', 'none')),
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);

CREATE INDEX service_accounts_by_project ON service_accounts (project_id, created_at, id);

-- Virtual keys. Budget and spend belong to the key; a rotation gives it another value.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    service_account_id TEXT NOT NULL REFERENCES service_accounts (id),
    name TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('all', 'read')),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT
);

CREATE INDEX keys_by_project ON keys (project_id, created_at, id);

CREATE INDEX keys_by_service_account ON keys (service_account_id);

-- The value itself is never stored, only its SHA-256 and what is needed to show it. ends_at is when
-- a rotated value ends.
CREATE TABLE key_values (
    value_sha256 TEXT PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES keys (id),
    value_hint TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ends_at BIGINT
);

CREATE INDEX key_values_by_key ON key_values (key_id, created_at);

-- Keys of the admin API. from_settings marks the one that the setting `admin_key` stands for.
CREATE TABLE admin_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    value_sha256 TEXT NOT NULL UNIQUE,
    value_hint TEXT NOT NULL,
    from_settings BIGINT NOT NULL CHECK (from_settings IN (0, 1)),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT
);

CREATE INDEX admin_keys_by_time ON admin_keys (created_at, id);

-- Which models a project or a key may ask for: model_ids is a JSON array. No row: all of them.
CREATE TABLE model_permissions (
    level TEXT NOT NULL CHECK (level IN ('project', 'key')),
    level_id TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('allow_list', 'deny_list')),
    model_ids TEXT NOT NULL,
    PRIMARY KEY (level, level_id)
);

-- How much, how often, how many at once: NULL is no limit. The row of model '' is about all models
-- together; the last three stand only there.
CREATE TABLE limits (
    level TEXT NOT NULL CHECK (level IN ('project', 'key')),
    level_id TEXT NOT NULL,
    model TEXT NOT NULL,
    requests_per_minute BIGINT,
    requests_per_day BIGINT,
    videos_in_flight BIGINT,
    price_micros BIGINT,
    reads_per_minute BIGINT,
    PRIMARY KEY (level, level_id, model)
);

-- What was bought in a minute or a day (start: Unix seconds) for which there is a limit.
CREATE TABLE request_counts (
    id TEXT PRIMARY KEY,
    window_start BIGINT NOT NULL,
    requests BIGINT NOT NULL
);

CREATE INDEX request_counts_by_time ON request_counts (window_start);

-- Who changed what. Rows are only ever added.
CREATE TABLE audit_log (
    id TEXT PRIMARY KEY,
    effective_at BIGINT NOT NULL,
    type TEXT NOT NULL,
    actor_kind TEXT NOT NULL CHECK (actor_kind IN ('admin_key', 'command', 'gateway')),
    actor_id TEXT NOT NULL,
    request_id TEXT,
    project_id TEXT,
    resource TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    facts_before TEXT,
    facts_after TEXT
);

CREATE INDEX audit_log_by_time ON audit_log (effective_at, id);

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

CREATE INDEX balances_by_period ON balances (period, period_start);

-- What was asked for, at which rate, and how it ended. accounting_day is the UTC day of the hold;
-- with project and key it names the nine balances that the hold touched, and settle and release
-- touch exactly those. list_micros is the price by the rate card; at cost_multiplier_ppm millionths
-- it is what the operator pays. amount_micros is the one of the two that the basis names.
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
    list_micros BIGINT NOT NULL CHECK (list_micros >= 0),
    cost_multiplier_ppm BIGINT NOT NULL CHECK (cost_multiplier_ppm > 0),
    basis TEXT NOT NULL CHECK (basis IN ('list', 'cost')),
    amount_micros BIGINT NOT NULL CHECK (amount_micros >= 0),
    state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'released')),
    settled_micros BIGINT,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);

CREATE INDEX holds_by_day ON holds (accounting_day, project_id);

-- Append-only. held_micros and spent_micros are signed changes; the sum over all entries of the
-- holds that touched a balance is that balance. A hold has one opening entry (id: hold id/hold)
-- and at most one end, settle or release (id: hold id/end): the primary key says so. Beside
-- spent_micros, which is on the basis of the hold, stand the same change at list price and at cost.
CREATE TABLE entries (
    id TEXT PRIMARY KEY,
    hold_id TEXT NOT NULL REFERENCES holds (id),
    kind TEXT NOT NULL CHECK (kind IN ('hold', 'settle', 'release', 'adjust')),
    held_micros BIGINT NOT NULL,
    spent_micros BIGINT NOT NULL,
    list_micros BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX entries_by_hold ON entries (hold_id);

CREATE INDEX entries_by_time ON entries (created_at, id);

-- Spend by line item, the sums of the entries that the cost reports would else have to add up: per
-- day, project and key; and per month and project (key_id ''). id joins all that tell a row apart.
CREATE TABLE costs (
    id TEXT PRIMARY KEY,
    period TEXT NOT NULL CHECK (period IN ('day', 'month')),
    period_start TEXT NOT NULL,
    project_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    size TEXT NOT NULL,
    operation TEXT NOT NULL,
    spent_micros BIGINT NOT NULL,
    list_micros BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    videos BIGINT NOT NULL,
    clip_seconds BIGINT NOT NULL
);

-- It holds all that a report reads, in the order in which it is grouped.
CREATE INDEX costs_by_period ON costs (period, period_start, project_id, model, size, operation,
    key_id, spent_micros, list_micros, cost_micros, videos, clip_seconds);

-- A spend alert rings once per threshold and period: id of its delivery is
-- alert:period:start:threshold.
CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    level TEXT NOT NULL CHECK (level IN ('organization', 'project', 'key')),
    level_id TEXT NOT NULL,
    period TEXT NOT NULL CHECK (period IN ('day', 'month', 'total')),
    threshold_micros BIGINT NOT NULL CHECK (threshold_micros >= 0),
    channel TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);

CREATE INDEX alerts_by_level ON alerts (level, level_id, period) WHERE deleted_at IS NULL;

CREATE TABLE alert_deliveries (
    id TEXT PRIMARY KEY,
    alert_id TEXT NOT NULL,
    level TEXT NOT NULL,
    level_id TEXT NOT NULL,
    name TEXT NOT NULL,
    period TEXT NOT NULL,
    period_start TEXT NOT NULL,
    threshold_micros BIGINT NOT NULL,
    spent_micros BIGINT NOT NULL,
    limit_micros BIGINT,
    channel TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    due_at BIGINT,
    claim_number BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    delivered_at BIGINT,
    given_up_at BIGINT,
    failure TEXT
);

CREATE INDEX alert_deliveries_due ON alert_deliveries (due_at) WHERE due_at IS NOT NULL;

CREATE INDEX alert_deliveries_by_time ON alert_deliveries (created_at, id);

-- due_at is when somebody has to look at the row again: the end of the submit lease while a submit
-- is under way, then the next poll, NULL when nothing is left to be done. A claim moves it to the
-- end of the claimer's lease and increments claim_number, which fences every write of the claim.
-- hold_id is NULL for a video that was not bought here but adopted: nothing of it is in the ledger.
-- pinned_at: its content is kept whatever retention says. object is the video as clients see it (JSON); fields are the checked parameters (JSON). A
-- character is made by the same billable step, so it has a row of the same form.
CREATE TABLE videos (
    id TEXT PRIMARY KEY,
    hold_id TEXT UNIQUE REFERENCES holds (id),
    project_id TEXT NOT NULL,
    key_id TEXT,
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
    pinned_at BIGINT,
    polled_at BIGINT,
    missing_polls BIGINT NOT NULL,
    due_at BIGINT,
    claim_number BIGINT NOT NULL,
    provider_request_id TEXT,
    relay_request_id TEXT
);

CREATE INDEX videos_by_upstream_id ON videos (upstream_id, project_id, created_at, id);

CREATE INDEX videos_by_project ON videos (project_id, created_at, id);

CREATE INDEX videos_by_time ON videos (created_at, id);

CREATE INDEX videos_in_flight ON videos (project_id, key_id)
    WHERE status IN ('queued', 'in_progress') AND orphaned_at IS NULL AND refused_at IS NULL
    AND due_at IS NOT NULL;

CREATE INDEX videos_due ON videos (due_at) WHERE due_at IS NOT NULL;

CREATE INDEX videos_orphaned ON videos (orphaned_at) WHERE orphaned_at IS NOT NULL;

CREATE INDEX videos_pinned ON videos (project_id) WHERE pinned_at IS NOT NULL;

-- The first video that an upstream gave an id to owns it: a second one is an orphan.
CREATE TABLE upstream_ids (
    upstream TEXT NOT NULL,
    upstream_id TEXT NOT NULL,
    video_id TEXT NOT NULL REFERENCES videos (id),
    PRIMARY KEY (upstream, upstream_id)
);

-- One row per variant of a completed video; id is also its key in the store. The copy of the
-- upstream ends at expires_at. What came of it, at most one of these: mirrored_at (the store has it),
-- absent_at (the upstream has no such variant), gone_at (it was lost before it was mirrored). While
-- somebody is mirroring it, leased_at is set and due_at is the end of the lease. removed_at: our copy
-- is no longer served, removed_for says why; purged_at: its bytes are out of the store as well.
-- damaged_at: the store's bytes were not those of sha256; they are not served and fetched again.
-- verified_at is set with mirrored_at, and whenever the store's bytes were read again and were right.
CREATE TABLE assets (
    id TEXT PRIMARY KEY,
    video_id TEXT NOT NULL REFERENCES videos (id),
    project_id TEXT NOT NULL,
    variant TEXT NOT NULL CHECK (variant IN ('video', 'thumbnail', 'spritesheet')),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    content_type TEXT,
    size_bytes BIGINT,
    sha256 TEXT,
    mirrored_at BIGINT,
    verified_at BIGINT,
    damaged_at BIGINT,
    absent_at BIGINT,
    gone_at BIGINT,
    removed_at BIGINT,
    removed_for TEXT CHECK (removed_for IN ('deletion', 'age', 'space')),
    purged_at BIGINT,
    attempts BIGINT NOT NULL,
    failure TEXT,
    alarmed_at BIGINT,
    leased_at BIGINT,
    due_at BIGINT,
    claim_number BIGINT NOT NULL,
    UNIQUE (video_id, variant)
);

CREATE INDEX assets_due ON assets (due_at) WHERE due_at IS NOT NULL;

-- What is kept, in the order in which it is let go. Both hold all that adding up needs: with
-- removed_at, because SQLite looks it up although the index itself says that it is NULL.
CREATE INDEX assets_kept ON assets (project_id, mirrored_at, id, size_bytes, removed_at)
    WHERE mirrored_at IS NOT NULL AND removed_at IS NULL;

CREATE INDEX assets_by_age ON assets (mirrored_at, id, size_bytes, removed_at)
    WHERE mirrored_at IS NOT NULL AND removed_at IS NULL;

CREATE INDEX assets_to_verify ON assets (verified_at, id, project_id, size_bytes)
    WHERE mirrored_at IS NOT NULL AND removed_at IS NULL;

CREATE INDEX assets_to_purge ON assets (removed_for, removed_at, id, size_bytes, purged_at)
    WHERE removed_at IS NOT NULL AND purged_at IS NULL;

-- The next three hold all that is counted of what is not kept.
CREATE INDEX assets_waiting ON assets (created_at, id, expires_at, leased_at, damaged_at, due_at,
    failure, size_bytes) WHERE due_at IS NOT NULL;

CREATE INDEX assets_lost ON assets (id, damaged_at, failure, size_bytes)
    WHERE gone_at IS NOT NULL AND removed_at IS NULL;

CREATE INDEX assets_absent ON assets (id) WHERE absent_at IS NOT NULL AND removed_at IS NULL;

-- How long and how much of a project's content is kept. keep_seconds: 0 is for ever, NULL as the
-- settings say; keep_bytes: NULL is no limit of its own.
CREATE TABLE retentions (
    project_id TEXT PRIMARY KEY REFERENCES projects (id),
    keep_seconds BIGINT CHECK (keep_seconds >= 0),
    keep_bytes BIGINT CHECK (keep_bytes >= 0)
);

-- Which request made which video, so that the same request sent again is answered and not bought
-- again. fields_sha256 is over the parsed parameters and the file's bytes. answer is the body of
-- the first answer; left_at says that its client was gone before it could be sent; retry_count is
-- the last retry of an SDK that was answered with this attempt, claimed_by the video that this retry
-- would else have made.

CREATE TABLE attempts (
    video_id TEXT PRIMARY KEY REFERENCES videos (id),
    project_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    idempotency_key TEXT,
    fields_sha256 TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    answer TEXT,
    left_at BIGINT,
    retry_count BIGINT NOT NULL,
    claimed_by TEXT
);

CREATE INDEX attempts_by_claim ON attempts (claimed_by) WHERE claimed_by IS NOT NULL;

CREATE UNIQUE INDEX attempts_by_idempotency_key ON attempts (project_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Requests that were refused although an SDK sends them again: their retry is a purchase of its own,
-- not a repeat of the same fields bought before.
CREATE TABLE refused_attempts (
    id TEXT PRIMARY KEY,
    key_id TEXT NOT NULL,
    fields_sha256 TEXT NOT NULL,
    retry_count BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX refused_attempts_by_fields ON refused_attempts (key_id, fields_sha256, created_at);

CREATE INDEX attempts_by_fields ON attempts (key_id, fields_sha256, created_at);

-- Copies of one database into another. Both sides have the row; on the side of the target, nothing
-- is served before finished_at is set. These rows are not copied.
CREATE TABLE copies (
    id TEXT PRIMARY KEY,
    side TEXT NOT NULL CHECK (side IN ('source', 'target')),
    begun_at BIGINT NOT NULL,
    finished_at BIGINT
);
