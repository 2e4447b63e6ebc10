-- backplane:compatible-from 0018_announced_keys
ALTER TABLE "services" ADD COLUMN "payment_provider" boolean NOT NULL DEFAULT false;
