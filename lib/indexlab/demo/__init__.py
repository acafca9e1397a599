"""Load the demo data: a booking application with ten wished-for indexes.

The story ends on the evening of 2026-06-30. Nothing depends on the clock of the machine or on
`random()`: every value is a hash of the seed and a row number, so the same size and seed give
the same data anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg

from indexlab.errors import InputError

SCHEMA: Final = Path(__file__).with_name("schema.sql")
PLAN: Final = Path(__file__).with_name("plan.sql")
WORKLOAD: Final = Path(__file__).with_name("workload.sql")

DEFAULT_ROWS: Final = 1_000_000
DEFAULT_SEED: Final = 20260630
MIN_ROWS: Final = 1_000
MAX_ROWS: Final = 50_000_000

_AFTER_LOAD: Final = b"-- After the load:"

CORE: Final = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'core'"

# The load is alone in its database and may use its memory. The commit waits for its log record,
# because VACUUM marks no page as all-visible before that record is on disk.
SETTINGS: Final = """
SET LOCAL timezone = 'UTC';
SET LOCAL work_mem = '256MB';
SET LOCAL maintenance_work_mem = '256MB';
SET LOCAL synchronous_commit = on;
SET LOCAL jit = off;
"""

# SQL functions of one expression: the planner inlines them.
FUNCTIONS: Final = """
CREATE FUNCTION pg_temp.share(n bigint, seed bigint) RETURNS double precision
    LANGUAGE sql IMMUTABLE
    RETURN (hashint8extended(n, seed) & 4503599627370495)::double precision / 4503599627370496;

-- The digits of a version 4 uuid, so that keys come in no physical order.
CREATE FUNCTION pg_temp.key(kind text, n bigint, seed bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE
    RETURN overlay(overlay(md5(kind || n::text || ':' || seed::text)
        PLACING '4' FROM 13) PLACING 'a' FROM 17)::uuid;
"""

DROP_FUNCTIONS: Final = """
DROP FUNCTION pg_temp.share(bigint, bigint);
DROP FUNCTION pg_temp.key(text, bigint, bigint);
"""

STATIONS: Final = """
INSERT INTO core.stations (id, code, name, city, is_active, created_at, updated_at)
SELECT
    pg_temp.key('station', n, %(seed)s::bigint),
    'ST-' || lpad(n::text, 4, '0'),
    city || ' ' || n::text,
    city,
    true,
    opened,
    opened
FROM (
    SELECT
        n,
        (ARRAY['Aarhus', 'Basel', 'Cork', 'Dresden', 'Evora', 'Ghent', 'Graz', 'Leiden', 'Lyon',
               'Malmo', 'Porto', 'Turin'])[1 + n %% 12] AS city,
        timestamptz '2023-11-01 09:00+00' + interval '1 hour' * (n %% 600) AS opened
    FROM generate_series(1, %(stations)s::bigint) AS n
) AS s
"""

# A customer's number is also the rank by bookings: 1 books most.
NUMBERED_CUSTOMERS: Final = """
CREATE TEMPORARY TABLE numbered_customers ON COMMIT DROP AS
SELECT
    n,
    pg_temp.key('customer', n, %(seed)s::bigint) AS id,
    pg_temp.key(
        'station',
        1 + floor(%(stations)s * pg_temp.share(n, %(seed)s::bigint + 1) ^ 1.6)::bigint,
        %(seed)s::bigint
    ) AS station_id
FROM generate_series(1, %(customers)s::bigint) AS n
"""

# Rank of the customer by Zipf and Mandelbrot, p(k) ~ 1 / (k + q): few book weekly, most once or
# twice. OFFSET 0 keeps the planner from merging the levels and computing each hash many times.
BOOKINGS: Final = """
INSERT INTO core.bookings (
    id, station_id, customer_id, date, slot, guests, status, source,
    total_cents, currency, reference, notes, created_at, updated_at
)
SELECT
    b.id,
    c.station_id,
    c.id,
    b.date,
    b.slot,
    b.guests,
    b.status,
    (ARRAY['web', 'web', 'web', 'app', 'app', 'app', 'phone', 'partner'])[1 + b.h2 / 8192],
    b.guests * (ARRAY[1900, 2400, 2400, 2900, 2900, 3900, 4900, 7900])[1 + (b.h2 / 1024) %% 8],
    'EUR',
    'BK-' || upper(substr(b.id::text, 1, 8)),
    (ARRAY[
        NULL, NULL, NULL, NULL,
        'Customer asked for a quiet place near the entrance, if there is one.',
        'Arrives by train, may be up to fifteen minutes late; please hold the slot.',
        'Needs an invoice with the company address on file, cost centre in the subject.',
        'Second visit this year, voucher from the spring campaign was already used.',
        'Please call before the appointment, the door bell does not work.',
        'Wheelchair access needed; confirmed with the station by phone.',
        'Booked for a colleague, who will show the reference at the counter.',
        'Bring the documents from last time, they are kept with the station manager.'
    ])[1 + b.h2 %% 12],
    b.created_at,
    CASE b.status
        WHEN 'pending' THEN b.created_at
        WHEN 'confirmed' THEN b.created_at + interval '7 minutes'
        WHEN 'cancelled' THEN least(
            b.created_at + (b.date - b.created_at) * (b.h2 %% 1000) / 1000,
            timestamptz '2026-06-30 22:30+00'
        )
        ELSE b.date + b.slot + interval '50 minutes'
    END
FROM (
    SELECT
        d.*,
        -- Requests wait for a station's word for a few days, and some are forgotten for good.
        CASE
            WHEN d.date > date '2026-06-30' AND d.patience < 0.95 / (1 + d.age / 3) ^ 2 THEN 'pending'
            WHEN d.fate < 0.06 THEN 'cancelled'
            WHEN d.date > date '2026-06-30' THEN 'confirmed'
            WHEN d.fate < 0.077 THEN 'no_show'
            WHEN d.fate < 0.0772 THEN 'pending'
            ELSE 'completed'
        END AS status
    FROM (
        SELECT
            r.n,
            r.id,
            r.customer,
            r.created_at,
            r.age,
            r.h2,
            -- A quarter of the weekday bookings would rather have the weekend that follows.
            CASE
                WHEN extract(isodow FROM r.wish) < 6 AND r.h1 & 1023 < 256
                THEN r.wish + (6 - extract(isodow FROM r.wish)::integer) + (r.h1 & 1)::integer
                ELSE r.wish
            END AS date,
            time '08:00' + interval '30 minutes' * (((r.h1 >> 10) & 1023) %% 24) AS slot,
            (ARRAY[1, 1, 1, 1, 1, 2, 2, 3])[1 + ((r.h1 >> 20) & 7)]::smallint AS guests,
            ((r.h1 >> 24) & 1048575) / 1048576.0::double precision AS fate,
            ((r.h1 >> 44) & 262143) / 262144.0::double precision AS patience
        FROM (
            SELECT
                t.n,
                t.h1,
                ((t.h1 # t.h3) >> 13 & 65535)::integer AS h2,
                pg_temp.key('booking', t.n, %(seed)s::bigint) AS id,
                1 + floor(
                    t.q * ((1 + %(customers)s / t.q) ^ ((t.h3 & 1073741823) / 1073741824.0::double precision) - 1)
                )::bigint AS customer,
                912 - t.day AS age,
                -- People book between 07:00 and 22:00, and not quite in the order of commits.
                timestamptz '2024-01-01 07:00+00'
                    + interval '1 day' * floor(t.day)
                    + interval '1 second' * floor(54000 * (t.day - floor(t.day)) + ((t.h3 >> 30) & 511))
                    AS created_at,
                date '2024-01-01' + floor(t.day)::integer + 1
                    + floor(45 * (((t.h3 >> 40) & 1048575) / 1048576.0::double precision) ^ 2)::integer
                    AS wish
            FROM (
                SELECT
                    n,
                    hashint8extended(n, %(seed)s::bigint + 2) AS h1,
                    hashint8extended(n, %(seed)s::bigint + 3) AS h3,
                    greatest(%(customers)s / 500.0::double precision, 20) AS q,
                    -- The business grows: day of the n-th booking among 912 days.
                    912 * (sqrt(0.49 + 1.2 * (n - 1)::double precision / %(rows)s) - 0.7) / 0.6 AS day
                FROM generate_series(1, %(rows)s::bigint) AS n
                OFFSET 0
            ) AS t
            OFFSET 0
        ) AS r
        OFFSET 0
    ) AS d
    OFFSET 0
) AS b
JOIN numbered_customers AS c ON c.n = b.customer
"""

# Customers registered minutes before their first booking; some never came back to book.
CUSTOMERS: Final = """
INSERT INTO core.customers (
    id, station_id, email_encrypted, phone_encrypted, first_name,
    language, marketing_opt_in, created_at, updated_at
)
SELECT
    c.id,
    c.station_id,
    translate(encode(sha512(('email' || c.id)::bytea) || substr(sha256(('mail' || c.id)::bytea), 1, 26), 'base64'), E'\\n', ''),
    translate(encode(substr(sha512(('phone' || c.id)::bytea), 1, 60), 'base64'), E'\\n', ''),
    (ARRAY['Ada', 'Bea', 'Carl', 'Dora', 'Emil', 'Fay', 'Gus', 'Hana', 'Ivo', 'Jun'])[1 + c.n %% 10],
    (ARRAY['en', 'de', 'fr', 'pt'])[1 + c.n %% 4],
    c.n %% 3 = 0,
    c.registered,
    c.registered
FROM (
    SELECT
        n.n,
        n.id,
        n.station_id,
        coalesce(
            b.first_booking - interval '4 minutes',
            timestamptz '2024-01-01 12:00+00' + interval '1 minute' * floor(1300000 * pg_temp.share(n.n, %(seed)s::bigint + 4))
        ) AS registered
    FROM numbered_customers AS n
    LEFT JOIN (
        SELECT
            customer_id,
            min(created_at) AS first_booking
        FROM core.bookings
        GROUP BY customer_id
    ) AS b ON b.customer_id = n.id
    ORDER BY registered, n.n
    OFFSET 0
) AS c
"""

PAYMENTS: Final = """
INSERT INTO core.payments (
    id, booking_id, amount_cents, currency, status, method,
    provider_ref, failure_code, created_at, updated_at
)
SELECT
    overlay(overlay(p.digest PLACING '4' FROM 13) PLACING 'a' FROM 17)::uuid,
    p.booking_id,
    p.total_cents,
    'EUR',
    p.status,
    (ARRAY['card', 'card', 'card', 'card', 'wallet', 'wallet', 'transfer', 'voucher'])[1 + (p.h >> 30) %% 8],
    'pi_' || substr(p.digest, 5, 24),
    CASE p.status
        WHEN 'failed' THEN (ARRAY['card_declined', 'insufficient_funds', 'expired_card'])[1 + (p.h >> 40) %% 3]
    END,
    p.created_at,
    CASE p.status
        WHEN 'refunded' THEN greatest(p.changed_at, p.created_at + interval '1 minute')
        ELSE p.created_at + interval '1 second' * ((p.h >> 34) & 31)
    END
FROM (
    SELECT
        s.*,
        s.booked_at + interval '1 second' * (20 + (s.h >> 20) %% 200) AS created_at,
        md5(s.h::text || s.booking_id::text) AS digest,
        CASE
            WHEN s.booking_status = 'pending' THEN 'pending'
            WHEN s.fate < 0.01 THEN 'failed'
            WHEN s.booking_status = 'cancelled' AND s.fate < 0.85 THEN 'refunded'
            WHEN s.fate < 0.0104 THEN 'pending'
            WHEN s.fate < 0.016 THEN 'refunded'
            ELSE 'paid'
        END AS status
    FROM (
        SELECT
            h.*,
            (h.h & 1048575) / 1048576.0::double precision AS fate
        FROM (
            SELECT
                id AS booking_id,
                total_cents,
                status AS booking_status,
                created_at AS booked_at,
                updated_at AS changed_at,
                uuid_hash_extended(id, %(seed)s::bigint) & 9223372036854775807 AS h
            FROM core.bookings
            OFFSET 0
        ) AS h
        OFFSET 0
    ) AS s
    OFFSET 0
) AS p
"""

# Statistics for the planner, and a visibility map that no later autovacuum has to write while a
# benchmark runs.
VACUUM: Final = """
VACUUM (ANALYZE, FREEZE)
    core.stations,
    core.customers,
    core.bookings,
    core.payments
"""


def load(
    conn: psycopg.Connection[Any],
    rows: int = DEFAULT_ROWS,
    *,
    seed: int = DEFAULT_SEED,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Create schema `core` and fill it: `rows` bookings and payments, a tenth as many customers.

    The tables are written in one transaction: after an error the database is as it was.

    Args:
        conn: an autocommit connection to a database without a schema `core`.
        rows: how many bookings, from 1,000 to 50,000,000.
        seed: the same rows and seed give the same data.
        progress: is told each step in a few words before it starts.

    Raises:
        InputError: for `rows` out of range, a connection that is not in autocommit mode, or a
            database that already has a schema `core`.
    """
    _check_rows(rows)
    if not conn.autocommit:
        raise InputError(
            "loading the demo ends with VACUUM, which no transaction may contain; "
            "connect with autocommit=True"
        )
    if conn.execute(CORE).rowcount:
        raise InputError(
            f"the database {conn.info.dbname!r} already has a schema 'core'; "
            "load the demo into an empty database"
        )
    tell = progress or (lambda _step: None)
    tables, keys = _schema()
    sizes = {
        "rows": rows,
        "customers": rows // 10,
        "stations": max(8, min(rows // 2_000, 2_000)),
        "seed": seed,
    }
    with conn.transaction():
        conn.execute(SETTINGS)
        conn.execute(tables)
        conn.execute(FUNCTIONS)
        tell(f"{rows:,} bookings")
        conn.execute(STATIONS, sizes)
        conn.execute(NUMBERED_CUSTOMERS, sizes)
        conn.execute("ANALYZE numbered_customers")
        conn.execute(BOOKINGS, sizes)
        tell(f"{sizes['customers']:,} customers")
        conn.execute(CUSTOMERS, sizes)
        tell(f"{rows:,} payments")
        conn.execute(PAYMENTS, sizes)
        conn.execute(DROP_FUNCTIONS)
        tell("keys and indexes")
        conn.execute(keys)
    tell("statistics")
    conn.execute(VACUUM)


def fingerprint(rows: int = DEFAULT_ROWS, seed: int = DEFAULT_SEED) -> str:
    """Return twelve hex digits that change when the schema, the generator, rows or seed do."""
    digest = hashlib.sha256(f"{rows}:{seed}:".encode())
    for file in (SCHEMA, Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _check_rows(rows: int) -> None:
    if not MIN_ROWS <= rows <= MAX_ROWS:
        raise InputError(
            f"the demo cannot have {rows!r} rows; choose from {MIN_ROWS:,} to {MAX_ROWS:,}"
        )


def _schema() -> tuple[bytes, bytes]:
    """Split the schema into what must exist before the rows and what is built over them."""
    tables, mark, keys = SCHEMA.read_bytes().partition(_AFTER_LOAD)
    return tables, mark + keys
