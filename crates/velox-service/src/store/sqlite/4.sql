-- Builds are counted by state and tenant without reading them. Not a partial index: SQLite would only use it for queries that
-- repeat its condition.
DROP INDEX states;
CREATE INDEX states ON builds (state, tenant);
