-- Tables: a challenge per request, its mail, and what was sent to each address lately.

create table otp.challenge (
    id           uuid        primary key,
    email        text        not null,
    recipient    text,
    mailbox      text,
    code_mac     bytea       not null,
    mac_key      smallint    not null,
    attempts     smallint    not null default 0,
    max_attempts smallint    not null,
    created_at   timestamptz not null,
    expires_at   timestamptz not null,
    used_at      timestamptz
) with (
    -- Room on the page for the attempts of a challenge: no index column changes, so its updates stay HOT.
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);

comment on table otp.challenge is 'One row per code that was asked for. Holds neither the token nor the code.';
comment on column otp.challenge.id is 'Time-ordered: 6 bytes of creation time (ms since 1970), then 10 bytes of the token''s hash. Safe to log.';
comment on column otp.challenge.email is 'The address as it was given; kept until the retention after expiry is over.';
comment on column otp.challenge.recipient is 'Where the mail goes: the domain in ASCII form; null: as email.';
comment on column otp.challenge.mailbox is 'The spelling that limits count by: lower case, without +tag; null: as email.';
comment on column otp.challenge.code_mac is 'BLAKE2b-256 of token and code under the pepper; useless without both.';
comment on column otp.challenge.mac_key is 'Number of the pepper that code_mac was made with.';
comment on column otp.challenge.attempts is 'Guesses evaluated so far, the right one included; never above max_attempts.';
comment on column otp.challenge.max_attempts is 'Guesses that this challenge allows.';
comment on column otp.challenge.created_at is 'When it was stored, by this server''s clock.';
comment on column otp.challenge.expires_at is 'From this moment of this server''s clock the code is refused.';
comment on column otp.challenge.used_at is 'When the code was accepted; a code is accepted once.';

create type otp.mail_state as enum ('queued', 'sent', 'failed', 'expired');
comment on type otp.mail_state is 'queued: to be sent (again); sent: a relay took it; failed: refused for good; expired: not sent in time';

create table otp.mail (
    id              uuid           primary key,
    sealed          bytea,
    mail_key        smallint       not null,
    locale          text,
    state           otp.mail_state not null default 'queued',
    attempts        smallint       not null default 0,
    doubts          smallint       not null default 0,
    next_attempt_at timestamptz    not null,
    give_up_at      timestamptz    not null,
    lease           uuid,
    last_reply      text,
    sent_at         timestamptz
) with (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);

create index mail_due on otp.mail (next_attempt_at) where state = 'queued';

comment on table otp.mail is 'The outbox: one mail per challenge, written in the same transaction.';
comment on column otp.mail.id is 'The challenge''s id; the Message-ID is made of it, so that a repeated mail is recognised.';
comment on column otp.mail.sealed is 'The code, sealed to the worker''s key; erased when the mail is sent, failed or expired.';
comment on column otp.mail.mail_key is 'Number of the worker''s key that sealed was made for.';
comment on column otp.mail.locale is 'Language asked for; null: the default.';
comment on column otp.mail.state is 'What became of it.';
comment on column otp.mail.attempts is 'How often a worker took it up.';
comment on column otp.mail.doubts is 'How many attempts left in doubt whether it was taken, or could ever be: it fails when there were some.';
comment on column otp.mail.next_attempt_at is 'Queued: not before this moment. Under a lease: when the lease ends.';
comment on column otp.mail.give_up_at is 'From this moment too little of the code''s life is left for sending it.';
comment on column otp.mail.lease is 'The claim that works on it; a result under any other lease is ignored.';
comment on column otp.mail.last_reply is 'The relay''s last reply, or what kept it from us.';
comment on column otp.mail.sent_at is 'When a relay took responsibility for it.';
comment on index otp.mail_due is 'The queue in the order in which it falls due.';

create table otp.address_quota (
    mailbox text          collate "C" primary key, -- compared byte by byte, which is cheaper than any language's order
    sent    timestamptz[] not null
) with (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05
);

comment on table otp.address_quota is 'When codes were last sent to an address, whatever its spelling; a day after the last one the row is swept.';
comment on column otp.address_quota.mailbox is 'As in otp.challenge: lower case, without +tag, domain in ASCII form.';
comment on column otp.address_quota.sent is 'Newest first, as many as the largest limit looks back on.';
