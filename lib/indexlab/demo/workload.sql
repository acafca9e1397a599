-- What the booking application sends, with calls per second as weights. Keys are random, so the
-- first rows in key order are a random sample that is cheap at any size and always the same.

-- name: customer_history
-- weight: 20
-- param customer_id: SELECT customer_id FROM core.bookings ORDER BY id LIMIT 200
-- The account page.
SELECT
    id,
    date,
    slot,
    status,
    total_cents
FROM core.bookings
WHERE customer_id = :customer_id
ORDER BY date DESC
LIMIT 20;

-- name: bookings_of_day
-- weight: 1
-- param date: SELECT DISTINCT date FROM (SELECT date FROM core.bookings ORDER BY id LIMIT 5000) AS sample ORDER BY date DESC LIMIT 50
-- The operations desk: the first page of everything that happens on one day.
SELECT
    id,
    station_id,
    slot,
    status,
    guests
FROM core.bookings
WHERE date = :date
ORDER BY slot, id
LIMIT 100;

-- name: newest_pending
-- weight: 3
-- The queue of the desk: requests that nobody has answered.
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
LIMIT 50;

-- name: pending_badge
-- weight: 5
-- The counter in the navigation bar, on every page.
SELECT count(*)
FROM core.bookings
WHERE status = 'pending';

-- name: dashboard_counts
-- weight: 2
-- param day: SELECT DISTINCT created_at::date FROM (SELECT created_at FROM core.bookings ORDER BY id LIMIT 5000) AS sample ORDER BY 1 DESC LIMIT 30
-- The dashboard: what was booked on a day, by status.
SELECT
    status,
    count(*) AS bookings,
    sum(total_cents) AS total_cents
FROM core.bookings
WHERE created_at >= :day::date
    AND created_at < :day::date + 1
GROUP BY status;

-- name: refunds_due
-- weight: 1
-- param date: SELECT DISTINCT date FROM (SELECT date FROM core.bookings ORDER BY id LIMIT 5000) AS sample ORDER BY date DESC LIMIT 50
-- Finance: bookings of a day that were cancelled, but whose money was not given back.
SELECT
    b.reference,
    c.first_name,
    c.email_encrypted,
    p.provider_ref,
    p.amount_cents
FROM core.bookings AS b
JOIN core.customers AS c ON c.id = b.customer_id
JOIN core.payments AS p ON p.booking_id = b.id
WHERE b.date = :date
    AND b.status = 'cancelled'
    AND p.status = 'paid';

-- name: failed_payments_of_week
-- weight: 1
-- param week: SELECT DISTINCT date_trunc('week', created_at)::date FROM (SELECT created_at, status FROM core.payments ORDER BY id LIMIT 5000) AS sample WHERE status = 'failed' ORDER BY 1 DESC LIMIT 20
-- Finance: failed payments of a week, with whom to write to.
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
    AND p.created_at >= :week::date
    AND p.created_at < :week::date + 7
ORDER BY p.created_at;

-- name: payments_to_settle
-- weight: 2
-- The settlement job asks the provider about open payments, the longest untouched first.
SELECT
    id,
    booking_id,
    provider_ref,
    amount_cents
FROM core.payments
WHERE status = 'pending'
ORDER BY updated_at
LIMIT 100;

-- name: login_by_email
-- weight: 10
-- param email: SELECT email_encrypted FROM core.customers ORDER BY id LIMIT 200
-- The login: encryption is deterministic, so equal addresses have equal ciphertexts.
SELECT
    id,
    station_id,
    language
FROM core.customers
WHERE email_encrypted = :email;

-- name: caller_by_phone
-- weight: 2
-- param phone: SELECT phone_encrypted FROM core.customers ORDER BY id LIMIT 200
-- The call centre.
SELECT
    id,
    station_id,
    first_name,
    language
FROM core.customers
WHERE phone_encrypted = :phone;

-- name: payment_of_booking
-- weight: 20
-- param booking_id: SELECT id FROM core.bookings ORDER BY id LIMIT 200
-- Every booking page. An index that exists already serves it.
SELECT
    id,
    status,
    method,
    amount_cents,
    created_at
FROM core.payments
WHERE booking_id = :booking_id;

-- name: revenue_by_station
-- weight: 1
-- The monthly board report reads every booking: no index helps.
SELECT
    s.code,
    count(*) AS bookings,
    sum(b.total_cents) AS total_cents
FROM core.bookings AS b
JOIN core.stations AS s ON s.id = b.station_id
WHERE b.status = 'completed'
GROUP BY s.code
ORDER BY total_cents DESC;

-- name: create_booking
-- weight: 2
-- param station_id, customer_id: SELECT station_id, id FROM core.customers ORDER BY id LIMIT 200
-- param date: SELECT DISTINCT date FROM (SELECT date FROM core.bookings ORDER BY id LIMIT 5000) AS sample ORDER BY date DESC LIMIT 20
-- A booking and its payment in one statement.
WITH booking AS (
    INSERT INTO core.bookings (
        id, station_id, customer_id, date, slot, guests, status, source, total_cents, reference
    )
    VALUES (
        gen_random_uuid(), :station_id, :customer_id, :date, '10:30', 2, 'pending', 'web', 4800, 'BK-DEMO'
    )
    RETURNING
        id,
        total_cents
)
INSERT INTO core.payments (id, booking_id, amount_cents, status, method, provider_ref)
SELECT
    gen_random_uuid(),
    id,
    total_cents,
    'pending',
    'card',
    'pi_demo'
FROM booking;

-- name: change_status
-- weight: 2
-- param booking_id: SELECT id FROM core.bookings ORDER BY id LIMIT 200
-- The station marks who did not come.
UPDATE core.bookings
SET
    status = 'no_show',
    updated_at = now()
WHERE id = :booking_id;
