-- The booking application's schema, as its migrations left it: one schema `core` that is
-- not on the search_path, uuid keys, and the indexes that somebody thought of on the day.

CREATE SCHEMA core;

CREATE TABLE core.stations (
    id          uuid         NOT NULL DEFAULT gen_random_uuid(),
    code        varchar(12)  NOT NULL,
    name        varchar(120) NOT NULL,
    city        varchar(80)  NOT NULL,
    is_active   boolean      NOT NULL DEFAULT true,
    created_at  timestamptz  NOT NULL DEFAULT now(),
    updated_at  timestamptz  NOT NULL DEFAULT now()
);

CREATE TABLE core.customers (
    id               uuid         NOT NULL DEFAULT gen_random_uuid(),
    station_id       uuid         NOT NULL,
    email_encrypted  varchar(500) NOT NULL,
    phone_encrypted  varchar(500),
    first_name       varchar(80)  NOT NULL,
    language         varchar(5)   NOT NULL DEFAULT 'en',
    marketing_opt_in boolean      NOT NULL DEFAULT false,
    created_at       timestamptz  NOT NULL DEFAULT now(),
    updated_at       timestamptz  NOT NULL DEFAULT now()
);

CREATE TABLE core.bookings (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    station_id   uuid        NOT NULL,
    customer_id  uuid        NOT NULL,
    date         date        NOT NULL,
    slot         time        NOT NULL,
    guests       smallint    NOT NULL DEFAULT 1,
    status       varchar(20) NOT NULL DEFAULT 'pending',
    source       varchar(20) NOT NULL DEFAULT 'web',
    total_cents  integer     NOT NULL,
    currency     varchar(3)  NOT NULL DEFAULT 'EUR',
    reference    varchar(12) NOT NULL,
    notes        text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_bookings_guests CHECK (guests > 0),
    CONSTRAINT ck_bookings_total_cents CHECK (total_cents >= 0),
    CONSTRAINT ck_bookings_status
        CHECK (status IN ('pending', 'confirmed', 'completed', 'cancelled', 'no_show'))
);

CREATE TABLE core.payments (
    id            uuid        NOT NULL DEFAULT gen_random_uuid(),
    booking_id    uuid        NOT NULL,
    amount_cents  integer     NOT NULL,
    currency      varchar(3)  NOT NULL DEFAULT 'EUR',
    status        varchar(20) NOT NULL DEFAULT 'pending',
    method        varchar(20) NOT NULL DEFAULT 'card',
    provider_ref  varchar(40) NOT NULL,
    failure_code  varchar(40),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_payments_amount_cents CHECK (amount_cents >= 0),
    CONSTRAINT ck_payments_status CHECK (status IN ('pending', 'paid', 'failed', 'refunded'))
);

-- After the load: keys and indexes are built once, over rows that are already there.

ALTER TABLE core.stations ADD CONSTRAINT pk_stations PRIMARY KEY (id);
ALTER TABLE core.stations ADD CONSTRAINT uq_stations_code UNIQUE (code);
ALTER TABLE core.customers ADD CONSTRAINT pk_customers PRIMARY KEY (id);
ALTER TABLE core.bookings ADD CONSTRAINT pk_bookings PRIMARY KEY (id);
ALTER TABLE core.payments ADD CONSTRAINT pk_payments PRIMARY KEY (id);

CREATE UNIQUE INDEX idx_customer_station_email ON core.customers (station_id, email_encrypted);
CREATE INDEX ix_core_bookings_station_id ON core.bookings (station_id);
CREATE INDEX ix_core_bookings_customer_id ON core.bookings (customer_id);
CREATE INDEX idx_booking_station_date ON core.bookings (station_id, date, slot);
CREATE INDEX idx_booking_station_customer ON core.bookings (station_id, customer_id);
CREATE INDEX ix_core_payments_booking_id ON core.payments (booking_id);

ALTER TABLE core.customers
    ADD CONSTRAINT fk_customers_station_id_stations
    FOREIGN KEY (station_id) REFERENCES core.stations (id);
ALTER TABLE core.bookings
    ADD CONSTRAINT fk_bookings_station_id_stations
    FOREIGN KEY (station_id) REFERENCES core.stations (id);
ALTER TABLE core.bookings
    ADD CONSTRAINT fk_bookings_customer_id_customers
    FOREIGN KEY (customer_id) REFERENCES core.customers (id);
ALTER TABLE core.payments
    ADD CONSTRAINT fk_payments_booking_id_bookings
    FOREIGN KEY (booking_id) REFERENCES core.bookings (id);
