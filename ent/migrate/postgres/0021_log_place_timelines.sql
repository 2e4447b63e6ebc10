-- backplane:compatible-from 0020_payments
ALTER TABLE "timelines" ADD COLUMN "place" character varying NOT NULL DEFAULT '' COLLATE "C", ADD COLUMN "server_timeline" bigint NOT NULL DEFAULT 0;
