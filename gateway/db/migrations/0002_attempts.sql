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
