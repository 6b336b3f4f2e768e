-- Tables: a challenge per request, its mail, and what was sent to each address lately.

create type otp.code as (
    mac        bytea,
    mac_key    smallint,
    expires_at timestamptz
);
comment on type otp.code is 'A code that was superseded by a resend: it counts on for the rest of its own life.';

-- What has a fixed size comes first: no room is lost between the columns.
create table otp.challenge (
    id           uuid        primary key,
    created_at   timestamptz not null,
    expires_at   timestamptz not null,
    attempts     smallint    not null default 0,
    max_attempts smallint    not null,
    digits       smallint    not null default 6,
    mac_key      smallint    not null,
    is_test      boolean     not null default false,
    email        text        not null,
    recipient    text,
    mailbox      text,
    application  text,
    purpose      text,
    context      bytea,
    code_mac     bytea       not null,
    earlier      otp.code[],
    resent       uuid[],
    used_at      timestamptz,
    revoked_at   timestamptz
) with (
    -- Room on the page for the attempts of a challenge: no index column changes, so its updates stay HOT.
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);

comment on table otp.challenge is 'One row per token. Holds neither the token nor a code.';
comment on column otp.challenge.id is 'Time-ordered: 6 bytes of creation time (ms since 1970), then 10 bytes of the token''s hash. Safe to log.';
comment on column otp.challenge.email is 'The address as it was given; kept until the retention after expiry is over.';
comment on column otp.challenge.recipient is 'Where the mail goes: the domain in ASCII form; null: as email.';
comment on column otp.challenge.mailbox is 'The spelling that limits count by: lower case, without +tag; null: as email.';
comment on column otp.challenge.application is 'Who asked: a name of the applications file; null: the default one.';
comment on column otp.challenge.purpose is 'What the code is for; a guess must name the same. null: none was given.';
comment on column otp.challenge.context is 'Hash of what the application binds the code to; a guess must name the same. null: nothing.';
comment on column otp.challenge.digits is 'Digits of its codes: what has more or fewer is no guess.';
comment on column otp.challenge.is_test is 'A test address: its code is fixed, and no mail is sent.';
comment on column otp.challenge.code_mac is 'BLAKE2b-256 of token and newest code under the pepper; useless without both.';
comment on column otp.challenge.earlier is 'The codes before the newest that may still live, newest first, two at most; null: none.';
comment on column otp.challenge.resent is 'Ids of the mails after the first, newest first; null: none.';
comment on column otp.challenge.mac_key is 'Number of the pepper that code_mac was made with.';
comment on column otp.challenge.attempts is 'Guesses evaluated so far, the right one included; never above max_attempts.';
comment on column otp.challenge.max_attempts is 'Guesses that this challenge allows.';
comment on column otp.challenge.created_at is 'When it was stored, by this server''s clock.';
comment on column otp.challenge.expires_at is 'From this moment of this server''s clock every code is refused; each of earlier has a moment of its own.';
comment on column otp.challenge.used_at is 'When a code was accepted, which happens once.';
comment on column otp.challenge.revoked_at is 'When the application or support ended it.';

create type otp.mail_state as enum ('queued', 'sent', 'failed', 'expired');
comment on type otp.mail_state is 'queued: to be sent (again); sent: a relay took it; failed: refused for good; expired: not sent in time';

create table otp.mail (
    id              uuid           primary key,
    challenge       uuid,
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

comment on table otp.mail is 'The outbox: one mail per code, written in the same transaction.';
comment on column otp.mail.id is 'The challenge''s id for its first mail, one of its own for a resent one; the Message-ID is made of it, so that a repeated mail is recognised.';
comment on column otp.mail.challenge is 'The challenge of a resent mail; null: the one with the mail''s id.';
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

comment on table otp.address_quota is 'When codes were last sent to an address, whatever its spelling, by an application; a day after the last one the row is swept.';
comment on column otp.address_quota.mailbox is 'As in otp.challenge: lower case, without +tag, domain in ASCII form. For a named application a space and its name follow, for a ticket''s holder a colon and the ticket''s id.';
comment on column otp.address_quota.sent is 'Newest first, as many as the largest limit looks back on.';
