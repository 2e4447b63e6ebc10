-- backplane:compatible-from 0015_events_by_actor_and_time
ALTER TABLE "leases" ADD COLUMN "checked_at" timestamptz NULL, ADD COLUMN "check_passed" boolean NULL, ADD COLUMN "check_ms" bigint NULL, ADD COLUMN "check_output" character varying NULL COLLATE "C";
