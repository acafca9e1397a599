-- plan.sql, as an indexlab audit revised it for demo_1000000_22b2d95872b0 (PostgreSQL 18.6).
-- 10 statements: 8 fix, 2 skip.
-- Run it with: psql -v ON_ERROR_STOP=1 -f migration.sql
-- CREATE INDEX CONCURRENTLY fails in a transaction: do not add --single-transaction.
-- Before: the planned indexes take about 127 MB in a database of 541 MB (23% of it); how much space is free is not known to SQL; look for 254 MB of free space on the server: the largest sort may need as much as its index again for a while.

\set ON_ERROR_STOP on
\timing on

-- 1. Changes: no statement blocks reading or writing

-- skip, line 4: bookings is not found: wrong schema, it exists as core.bookings; idx_bookings_customer_id is redundant: core.ix_core_bookings_customer_id has the same definition; idx_bookings_customer_id is redundant: the planned idx_bookings_customer_date (line 16) begins with the same keys
-- CREATE INDEX idx_bookings_customer_id ON bookings (customer_id);

-- the operations desk looks at everything that happens on one day
-- warning: bookings is not found: wrong schema, it exists as core.bookings
-- error: column event_date does not exist in core.bookings; nearest: date (subset of the words, type date, in the workload)
CREATE INDEX CONCURRENTLY idx_bookings_date ON core.bookings USING btree (date);

-- the pending counter in the navigation bar is on every page
-- warning: bookings is not found: wrong schema, it exists as core.bookings
CREATE INDEX CONCURRENTLY idx_bookings_status ON core.bookings USING btree (status);

-- the dashboard counts what was booked today
-- warning: bookings is not found: wrong schema, it exists as core.bookings
CREATE INDEX CONCURRENTLY idx_bookings_created_at ON core.bookings USING btree (created_at);

-- the customer history is sorted by date
-- warning: bookings is not found: wrong schema, it exists as core.bookings
-- error: column event_date does not exist in core.bookings; nearest: date (subset of the words, type date, in the workload)
CREATE INDEX CONCURRENTLY idx_bookings_customer_date ON core.bookings USING btree (customer_id, date);

-- skip, line 19: payments is not found: wrong schema, it exists as core.payments; idx_payments_booking_id is redundant: core.ix_core_payments_booking_id has the same definition
-- CREATE INDEX idx_payments_booking_id ON payments (booking_id);

-- the settlement job looks for payments that are still open
-- warning: payments is not found: wrong schema, it exists as core.payments
CREATE INDEX CONCURRENTLY idx_payments_status ON core.payments USING btree (status);

-- finance goes through the failed payments of the week
-- warning: payments is not found: wrong schema, it exists as core.payments
CREATE INDEX CONCURRENTLY idx_payments_created_at ON core.payments USING btree (created_at);

-- customers log in with their email address
-- warning: customers is not found: wrong schema, it exists as core.customers
-- error: column email does not exist in core.customers; nearest: email_encrypted (subset of the words, type character varying(500), in the workload)
CREATE INDEX CONCURRENTLY idx_customers_email ON core.customers USING btree (email_encrypted);

-- the call centre finds a caller by phone number
-- warning: customers is not found: wrong schema, it exists as core.customers
-- error: column phone does not exist in core.customers; nearest: phone_encrypted (subset of the words, type character varying(500), in the workload)
CREATE INDEX CONCURRENTLY idx_customers_phone ON core.customers USING btree (phone_encrypted);

-- 2. Statistics: an index on an expression has none before

ANALYZE core.bookings;
ANALYZE core.payments;
ANALYZE core.customers;

-- 3. Verification: every index must be valid and ready

SELECT n.nspname AS schema,
       c.relname AS index,
       i.indisvalid AS valid,
       i.indisready AS ready,
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(c.oid)) AS size,
       pg_catalog.pg_get_indexdef(c.oid) AS definition
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE (n.nspname, c.relname) IN (
           ('core', 'idx_bookings_date'),
           ('core', 'idx_bookings_status'),
           ('core', 'idx_bookings_created_at'),
           ('core', 'idx_bookings_customer_date'),
           ('core', 'idx_payments_status'),
           ('core', 'idx_payments_created_at'),
           ('core', 'idx_customers_email'),
           ('core', 'idx_customers_phone')
       )
 ORDER BY n.nspname, c.relname;

-- 4. Performance: what the queries do now

BEGIN READ ONLY;

-- customer_history, weight 20
SELECT sample.customer_id::text AS customer_id
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   SELECT customer_id FROM core.bookings ORDER BY id LIMIT 200
               ) AS drawn (customer_id)
              WHERE (customer_id) IS NOT NULL
              LIMIT 1) AS sample ON true \gset indexlab_
\if :{?indexlab_customer_id}
PREPARE indexlab_query_1 AS
SELECT
    id,
    date,
    slot,
    status,
    total_cents
FROM core.bookings
WHERE customer_id = $1
ORDER BY date DESC
LIMIT 20
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_1 (:'indexlab_customer_id');
DEALLOCATE indexlab_query_1;
\endif

-- bookings_of_day, weight 1
SELECT sample.date::text AS date
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   SELECT DISTINCT date FROM (SELECT date FROM core.bookings ORDER BY id LIMIT 5000) AS sample ORDER BY date DESC LIMIT 50
               ) AS drawn (date)
              WHERE (date) IS NOT NULL
              LIMIT 1) AS sample ON true \gset indexlab_
\if :{?indexlab_date}
PREPARE indexlab_query_2 AS
SELECT
    id,
    station_id,
    slot,
    status,
    guests
FROM core.bookings
WHERE date = $1
ORDER BY slot, id
LIMIT 100
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_2 (:'indexlab_date');
DEALLOCATE indexlab_query_2;
\endif

-- newest_pending, weight 3
PREPARE indexlab_query_3 AS
SELECT
    id,
    station_id,
    customer_id,
    date,
    slot,
    created_at
FROM core.bookings
WHERE status = 'pending'
ORDER BY created_at DESC
LIMIT 50
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_3;
DEALLOCATE indexlab_query_3;

-- pending_badge, weight 5
PREPARE indexlab_query_4 AS
SELECT count(*)
FROM core.bookings
WHERE status = 'pending'
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_4;
DEALLOCATE indexlab_query_4;

-- dashboard_counts, weight 2
SELECT sample.day::text AS day
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   SELECT DISTINCT created_at::date FROM (SELECT created_at FROM core.bookings ORDER BY id LIMIT 5000) AS sample ORDER BY 1 DESC LIMIT 30
               ) AS drawn (day)
              WHERE (day) IS NOT NULL
              LIMIT 1) AS sample ON true \gset indexlab_
\if :{?indexlab_day}
PREPARE indexlab_query_5 AS
SELECT
    status,
    count(*) AS bookings,
    sum(total_cents) AS total_cents
FROM core.bookings
WHERE created_at >= $1::date
    AND created_at < $1::date + 1
GROUP BY status
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_5 (:'indexlab_day');
DEALLOCATE indexlab_query_5;
\endif

-- refunds_due, weight 1
SELECT sample.date::text AS date
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   SELECT DISTINCT date FROM (SELECT date FROM core.bookings ORDER BY id LIMIT 5000) AS sample ORDER BY date DESC LIMIT 50
               ) AS drawn (date)
              WHERE (date) IS NOT NULL
              LIMIT 1) AS sample ON true \gset indexlab_
\if :{?indexlab_date}
PREPARE indexlab_query_6 AS
SELECT
    b.reference,
    c.first_name,
    c.email_encrypted,
    p.provider_ref,
    p.amount_cents
FROM core.bookings AS b
JOIN core.customers AS c ON c.id = b.customer_id
JOIN core.payments AS p ON p.booking_id = b.id
WHERE b.date = $1
    AND b.status = 'cancelled'
    AND p.status = 'paid'
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_6 (:'indexlab_date');
DEALLOCATE indexlab_query_6;
\endif

-- failed_payments_of_week, weight 1
SELECT sample.week::text AS week
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   SELECT DISTINCT date_trunc('week', created_at)::date FROM (SELECT created_at, status FROM core.payments ORDER BY id LIMIT 5000) AS sample WHERE status = 'failed' ORDER BY 1 DESC LIMIT 20
               ) AS drawn (week)
              WHERE (week) IS NOT NULL
              LIMIT 1) AS sample ON true \gset indexlab_
\if :{?indexlab_week}
PREPARE indexlab_query_7 AS
SELECT
    p.provider_ref,
    p.failure_code,
    p.amount_cents,
    b.reference,
    c.first_name,
    c.email_encrypted
FROM core.payments AS p
JOIN core.bookings AS b ON b.id = p.booking_id
JOIN core.customers AS c ON c.id = b.customer_id
WHERE p.status = 'failed'
    AND p.created_at >= $1::date
    AND p.created_at < $1::date + 7
ORDER BY p.created_at
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_7 (:'indexlab_week');
DEALLOCATE indexlab_query_7;
\endif

-- payments_to_settle, weight 2
PREPARE indexlab_query_8 AS
SELECT
    id,
    booking_id,
    provider_ref,
    amount_cents
FROM core.payments
WHERE status = 'pending'
ORDER BY updated_at
LIMIT 100
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_8;
DEALLOCATE indexlab_query_8;

-- login_by_email, weight 10
SELECT sample.email::text AS email
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   SELECT email_encrypted FROM core.customers ORDER BY id LIMIT 200
               ) AS drawn (email)
              WHERE (email) IS NOT NULL
              LIMIT 1) AS sample ON true \gset indexlab_
\if :{?indexlab_email}
PREPARE indexlab_query_9 AS
SELECT
    id,
    station_id,
    language
FROM core.customers
WHERE email_encrypted = $1
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_9 (:'indexlab_email');
DEALLOCATE indexlab_query_9;
\endif

-- caller_by_phone, weight 2
SELECT sample.phone::text AS phone
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   SELECT phone_encrypted FROM core.customers ORDER BY id LIMIT 200
               ) AS drawn (phone)
              WHERE (phone) IS NOT NULL
              LIMIT 1) AS sample ON true \gset indexlab_
\if :{?indexlab_phone}
PREPARE indexlab_query_10 AS
SELECT
    id,
    station_id,
    first_name,
    language
FROM core.customers
WHERE phone_encrypted = $1
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_10 (:'indexlab_phone');
DEALLOCATE indexlab_query_10;
\endif

-- payment_of_booking, weight 20
SELECT sample.booking_id::text AS booking_id
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   SELECT id FROM core.bookings ORDER BY id LIMIT 200
               ) AS drawn (booking_id)
              WHERE (booking_id) IS NOT NULL
              LIMIT 1) AS sample ON true \gset indexlab_
\if :{?indexlab_booking_id}
PREPARE indexlab_query_11 AS
SELECT
    id,
    status,
    method,
    amount_cents,
    created_at
FROM core.payments
WHERE booking_id = $1
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_11 (:'indexlab_booking_id');
DEALLOCATE indexlab_query_11;
\endif

-- revenue_by_station, weight 1
PREPARE indexlab_query_12 AS
SELECT
    s.code,
    count(*) AS bookings,
    sum(b.total_cents) AS total_cents
FROM core.bookings AS b
JOIN core.stations AS s ON s.id = b.station_id
WHERE b.status = 'completed'
GROUP BY s.code
ORDER BY total_cents DESC
;
EXPLAIN (ANALYZE, BUFFERS) EXECUTE indexlab_query_12;
DEALLOCATE indexlab_query_12;

ROLLBACK;

-- 5. Monitoring: usage, running builds, sizes

SELECT s.schemaname AS schema,
       s.relname AS table,
       s.indexrelname AS index,
       s.idx_scan AS scans,
       s.idx_tup_read AS entries_read,
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.indexrelid)) AS size
  FROM pg_catalog.pg_stat_user_indexes AS s
 WHERE (s.schemaname, s.relname) IN (
           ('core', 'bookings'),
           ('core', 'payments'),
           ('core', 'customers')
       )
 ORDER BY s.schemaname, s.relname, s.idx_scan, s.indexrelname;

SELECT p.pid,
       p.relid::pg_catalog.regclass AS table,
       p.index_relid::pg_catalog.regclass AS index,
       p.phase,
       p.blocks_done,
       p.blocks_total,
       p.lockers_done,
       p.lockers_total
  FROM pg_catalog.pg_stat_progress_create_index AS p
 ORDER BY p.pid;

SELECT s.schemaname AS schema,
       s.relname AS table,
       s.indexrelname AS index,
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.indexrelid)) AS index_size,
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.relid)) AS table_size,
       round(pg_catalog.pg_relation_size(s.indexrelid)::numeric
             / greatest(c.reltuples::numeric, 1), 1) AS bytes_per_row
  FROM pg_catalog.pg_stat_user_indexes AS s
  JOIN pg_catalog.pg_class AS c ON c.oid = s.relid
 WHERE (s.schemaname, s.relname) IN (
           ('core', 'bookings'),
           ('core', 'payments'),
           ('core', 'customers')
       )
 ORDER BY pg_catalog.pg_relation_size(s.indexrelid) DESC, s.indexrelname;

-- 6. Superfluous once all of this has proved itself

-- core.ix_core_bookings_customer_id is superfluous once idx_bookings_customer_date (line 16) is built, which begins with the same keys; that one serves the foreign key fk_bookings_customer_id_customers as well; the plan makes core.ix_core_bookings_customer_id idle: customer_history uses it now, and no query of the workload with the plan in place; it had 0 scans since its statistics count
-- DROP INDEX CONCURRENTLY core.ix_core_bookings_customer_id;
-- core.ix_core_bookings_station_id is redundant: core.idx_booking_station_customer begins with the same keys; that one serves the foreign key fk_bookings_station_id_stations as well; no query of the workload uses core.ix_core_bookings_station_id, with the plan or without; it had 0 scans since its statistics count
-- DROP INDEX CONCURRENTLY core.ix_core_bookings_station_id;

-- 7. The way back

-- DROP INDEX CONCURRENTLY IF EXISTS core.idx_customers_phone;
-- DROP INDEX CONCURRENTLY IF EXISTS core.idx_customers_email;
-- DROP INDEX CONCURRENTLY IF EXISTS core.idx_payments_created_at;
-- DROP INDEX CONCURRENTLY IF EXISTS core.idx_payments_status;
-- DROP INDEX CONCURRENTLY IF EXISTS core.idx_bookings_customer_date;
-- DROP INDEX CONCURRENTLY IF EXISTS core.idx_bookings_created_at;
-- DROP INDEX CONCURRENTLY IF EXISTS core.idx_bookings_status;
-- DROP INDEX CONCURRENTLY IF EXISTS core.idx_bookings_date;
