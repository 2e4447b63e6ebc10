-- backplane:compatible-from 0016_last_checks_leases
CREATE TABLE "legacy_days" ("id" character varying NOT NULL COLLATE "C", "day" character varying NOT NULL COLLATE "C", "route" character varying NOT NULL COLLATE "C", "calls" bigint NOT NULL, PRIMARY KEY ("id"), CONSTRAINT "legacy_days_calls_count" CHECK (calls > 0));
