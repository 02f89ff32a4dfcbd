BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE calls (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	run_id TEXT, 
	session_id TEXT, 
	purpose TEXT NOT NULL, 
	model TEXT NOT NULL, 
	status TEXT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT, 
	cached_tokens BIGINT, 
	estimated INTEGER NOT NULL, 
	price JSON, 
	cost BIGINT, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_calls PRIMARY KEY (id)
);
CREATE TABLE chunk_vectors (
	n BIGINT NOT NULL, 
	embedding TEXT NOT NULL, 
	vectors BLOB NOT NULL, 
	CONSTRAINT pk_chunk_vectors PRIMARY KEY (n, embedding), 
	CONSTRAINT fk_chunk_vectors_n FOREIGN KEY(n) REFERENCES chunks (n) ON DELETE CASCADE
);
CREATE TABLE chunks (
	n INTEGER NOT NULL, 
	version_id TEXT NOT NULL, 
	ordinal INTEGER NOT NULL, 
	start INTEGER NOT NULL, 
	"end" INTEGER NOT NULL, 
	page INTEGER, 
	heading TEXT, 
	context TEXT, 
	text TEXT NOT NULL, 
	"after" TEXT, 
	spans BLOB NOT NULL, 
	CONSTRAINT pk_chunks PRIMARY KEY (n), 
	CONSTRAINT fk_chunks_version_id FOREIGN KEY(version_id) REFERENCES document_versions (id) ON DELETE CASCADE
);
CREATE TABLE collections (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	name TEXT NOT NULL, 
	fingerprint TEXT, 
	generation INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_collections PRIMARY KEY (id), 
	CONSTRAINT uq_collections_owner_name UNIQUE (owner, name)
);
CREATE TABLE counters (
	name TEXT NOT NULL, 
	value BIGINT NOT NULL, 
	CONSTRAINT pk_counters PRIMARY KEY (name)
);
INSERT INTO "counters" VALUES('chunks',1);
CREATE TABLE "document_versions" (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	document_id TEXT NOT NULL, 
	collection_id TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	status TEXT NOT NULL, 
	reason_code TEXT, 
	reason TEXT, 
	media_type TEXT, 
	title TEXT, 
	language TEXT, 
	pages INTEGER, 
	first_chunk BIGINT, 
	chunks INTEGER, 
	created_at BIGINT NOT NULL, 
	map JSON, 
	text TEXT, 
	CONSTRAINT pk_document_versions PRIMARY KEY (id), 
	CONSTRAINT fk_document_versions_document_id FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE
);
CREATE TABLE documents (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	collection_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	active_version TEXT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, pending_version TEXT, 
	CONSTRAINT pk_documents PRIMARY KEY (id), 
	CONSTRAINT fk_documents_collection_id FOREIGN KEY(collection_id) REFERENCES collections (id) ON DELETE CASCADE
);
CREATE TABLE feedback (
	message_id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	rating TEXT NOT NULL, 
	comment TEXT, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_feedback PRIMARY KEY (message_id), 
	CONSTRAINT fk_feedback_message_id FOREIGN KEY(message_id) REFERENCES messages (id) ON DELETE CASCADE, 
	CONSTRAINT fk_feedback_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE TABLE images (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	media_type TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_images PRIMARY KEY (id), 
	CONSTRAINT fk_images_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE TABLE "jobs" (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	collection_id TEXT NOT NULL, 
	document_id TEXT, 
	version_id TEXT, 
	stage TEXT NOT NULL, 
	progress JSON NOT NULL, 
	attempts INTEGER NOT NULL, 
	instance_id TEXT, 
	lease_until BIGINT NOT NULL, 
	reason_code TEXT, 
	reason TEXT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_jobs PRIMARY KEY (id), 
	CONSTRAINT fk_jobs_collection_id FOREIGN KEY(collection_id) REFERENCES collections (id) ON DELETE CASCADE, 
	CONSTRAINT fk_jobs_document_id FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE
);
CREATE TABLE message_texts (
	n INTEGER NOT NULL, 
	message_id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT pk_message_texts PRIMARY KEY (n), 
	CONSTRAINT fk_message_texts_message_id FOREIGN KEY(message_id) REFERENCES messages (id) ON DELETE CASCADE, 
	CONSTRAINT uq_message_texts_message_id UNIQUE (message_id)
);
CREATE TABLE messages (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	parent_id TEXT, 
	run_id TEXT, 
	role TEXT NOT NULL, 
	status TEXT NOT NULL, 
	parts JSON NOT NULL, 
	created_at BIGINT NOT NULL, retrieval JSON, model TEXT, prompt JSON, 
	CONSTRAINT pk_messages PRIMARY KEY (id), 
	CONSTRAINT fk_messages_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE TABLE prompt_labels (
	prompt_id TEXT NOT NULL, 
	label TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	n INTEGER NOT NULL, 
	CONSTRAINT pk_prompt_labels PRIMARY KEY (prompt_id, label), 
	CONSTRAINT fk_prompt_labels_prompt_id FOREIGN KEY(prompt_id) REFERENCES prompts (id) ON DELETE CASCADE
);
CREATE TABLE prompt_versions (
	prompt_id TEXT NOT NULL, 
	n INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	content JSON NOT NULL, 
	note TEXT, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_prompt_versions PRIMARY KEY (prompt_id, n), 
	CONSTRAINT fk_prompt_versions_prompt_id FOREIGN KEY(prompt_id) REFERENCES prompts (id) ON DELETE CASCADE
);
CREATE TABLE prompts (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_prompts PRIMARY KEY (id), 
	CONSTRAINT uq_prompts_owner_name UNIQUE (owner, name)
);
CREATE TABLE reservations (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	amount BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_reservations PRIMARY KEY (id)
);
CREATE TABLE run_events (
	run_id TEXT NOT NULL, 
	first_seq BIGINT NOT NULL, 
	last_seq BIGINT NOT NULL, 
	v INTEGER NOT NULL, 
	lines BLOB NOT NULL, 
	CONSTRAINT pk_run_events PRIMARY KEY (run_id, first_seq), 
	CONSTRAINT fk_run_events_run_id FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
CREATE TABLE runs (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	user_message_id TEXT NOT NULL, 
	message_id TEXT NOT NULL, 
	model TEXT NOT NULL, 
	status TEXT NOT NULL, 
	error JSON, 
	usage JSON, 
	instance_id TEXT NOT NULL, 
	lease_until BIGINT NOT NULL, 
	idempotency_key TEXT, 
	request_hash TEXT, 
	started_at BIGINT NOT NULL, 
	finished_at BIGINT, prompt JSON, 
	CONSTRAINT pk_runs PRIMARY KEY (id), 
	CONSTRAINT fk_runs_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE, 
	CONSTRAINT uq_runs_owner_idempotency_key UNIQUE (owner, idempotency_key)
);
CREATE TABLE sessions (
	id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	title TEXT NOT NULL, 
	head_message_id TEXT, 
	settings JSON NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, pinned INTEGER DEFAULT '0' NOT NULL, archived INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (id)
);
CREATE TABLE spendings (
	owner TEXT NOT NULL, 
	day INTEGER NOT NULL, 
	amount BIGINT NOT NULL, 
	CONSTRAINT pk_spendings PRIMARY KEY (owner, day)
);
CREATE TABLE summaries (
	message_id TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	model TEXT NOT NULL, 
	text TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_summaries PRIMARY KEY (message_id), 
	CONSTRAINT fk_summaries_message_id FOREIGN KEY(message_id) REFERENCES messages (id) ON DELETE CASCADE, 
	CONSTRAINT fk_summaries_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE INDEX ix_documents_owner_id ON documents (owner, id);
CREATE INDEX ix_messages_session_id_created_at ON messages (session_id, created_at);
CREATE INDEX ix_runs_session_id ON runs (session_id);
CREATE INDEX ix_runs_status_lease_until ON runs (status, lease_until);
CREATE INDEX ix_jobs_collection_id ON jobs (collection_id);
CREATE INDEX ix_jobs_document_id ON jobs (document_id);
CREATE INDEX ix_jobs_stage_owner_lease_until ON jobs (stage, owner, lease_until);
CREATE UNIQUE INDEX uq_document_versions_collection_id_sha256 ON document_versions (collection_id, sha256) WHERE status != 'superseded';
CREATE INDEX ix_document_versions_document_id ON document_versions (document_id);
CREATE INDEX ix_documents_collection_id_id ON documents (collection_id, id);
CREATE INDEX ix_chunks_version_id ON chunks (version_id);
CREATE INDEX ix_messages_session_id_parent_id ON messages (session_id, parent_id);
CREATE INDEX ix_calls_owner_created_at ON calls (owner, created_at);
CREATE INDEX ix_calls_run_id ON calls (run_id);
CREATE INDEX ix_reservations_owner ON reservations (owner);
CREATE INDEX ix_images_session_id ON images (session_id);
CREATE INDEX ix_summaries_session_id ON summaries (session_id);
CREATE INDEX ix_sessions_owner_archived_pinned_updated_at_id ON sessions (owner, archived, pinned, updated_at, id);
CREATE INDEX ix_runs_owner_started_at_id ON runs (owner, started_at, id);
CREATE INDEX ix_feedback_session_id ON feedback (session_id);
COMMIT;
