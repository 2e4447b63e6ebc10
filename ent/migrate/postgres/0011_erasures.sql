-- backplane:compatible-from 0010_sort_keys
CREATE TABLE "erasures" ("user_id" character varying NOT NULL COLLATE "C", "requested_at" timestamptz NOT NULL, "covers_until" timestamptz NOT NULL, "position" bigint NOT NULL DEFAULT 0, "due_at" timestamptz NOT NULL, PRIMARY KEY ("user_id"));
