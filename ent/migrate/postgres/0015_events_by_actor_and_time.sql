-- atlas:txmode none
-- backplane:compatible-from 0014_sweeps
CREATE INDEX CONCURRENTLY "event_actor_position" ON "events" ("actor", "position");
CREATE INDEX CONCURRENTLY "event_occurred_at" ON "events" ("occurred_at");
