-- What operators see: which trace a video was bought in, and what was found when the books were
-- last compared.
-- compatible with: 1

-- W3C traceparent of the span that bought the video; what is done for it later links to that.
ALTER TABLE videos ADD COLUMN traceparent TEXT;

-- The last result of each comparison: `audit` of the ledger with itself, `reconcile:UPSTREAM` with
-- that upstream's bill. drift_micros is what the other side has more, at list price.
CREATE TABLE comparisons (
    name TEXT PRIMARY KEY,
    compared_at BIGINT NOT NULL,
    differences BIGINT NOT NULL,
    drift_micros BIGINT NOT NULL
);
