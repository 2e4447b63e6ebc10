-- backplane:compatible-from 0014_sweeps
CREATE INDEX `event_actor_position` ON `events` (`actor`, `position`);
CREATE INDEX `event_occurred_at` ON `events` (`occurred_at`);
