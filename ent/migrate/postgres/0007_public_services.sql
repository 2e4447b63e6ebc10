ALTER TABLE "services" ADD COLUMN "public" boolean NOT NULL DEFAULT false;
