-- Written by readiness checks.
CREATE TABLE probe (
    number INTEGER PRIMARY KEY CHECK (number = 1),
    value TEXT NOT NULL
);
