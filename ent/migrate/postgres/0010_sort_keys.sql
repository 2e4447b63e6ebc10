ALTER TABLE "users" ADD COLUMN "username_sort" character varying NOT NULL DEFAULT '' COLLATE "C";
CREATE INDEX "user_username_sort_id" ON "users" ("username_sort", "id");
