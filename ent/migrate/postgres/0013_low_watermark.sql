-- backplane:compatible-from 0012_erasures_indexes
ALTER TABLE "sequencer" ADD COLUMN "low_seq" bigint NOT NULL DEFAULT 0;
