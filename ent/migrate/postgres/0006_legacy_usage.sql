CREATE TABLE "legacy_usage" ("id" character varying NOT NULL COLLATE "C", "route" character varying NOT NULL COLLATE "C", "client" character varying NOT NULL COLLATE "C", "calls" bigint NOT NULL, "first_seen_at" timestamptz NOT NULL, "last_seen_at" timestamptz NOT NULL, PRIMARY KEY ("id"), CONSTRAINT "legacy_usage_calls_count" CHECK (calls > 0));
CREATE INDEX "legacyusage_last_seen_at" ON "legacy_usage" ("last_seen_at");
CREATE INDEX "legacyusage_route_id" ON "legacy_usage" ("route", "id");
