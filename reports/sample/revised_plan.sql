-- plan.sql, revised by indexlab audit. 10 statements: 8 fix, 2 skip.

-- skip, line 4: bookings is not found: wrong schema, it exists as core.bookings; idx_bookings_customer_id is redundant: core.ix_core_bookings_customer_id has the same definition; idx_bookings_customer_id is redundant: the planned idx_bookings_customer_date (line 16) begins with the same keys
-- CREATE INDEX idx_bookings_customer_id ON bookings (customer_id);

-- warning: bookings is not found: wrong schema, it exists as core.bookings
-- error: column event_date does not exist in core.bookings; nearest: date (subset of the words, type date, in the workload)

-- the operations desk looks at everything that happens on one day
CREATE INDEX CONCURRENTLY idx_bookings_date ON core.bookings USING btree (date);

-- warning: bookings is not found: wrong schema, it exists as core.bookings

-- the pending counter in the navigation bar is on every page
CREATE INDEX CONCURRENTLY idx_bookings_status ON core.bookings USING btree (status);

-- warning: bookings is not found: wrong schema, it exists as core.bookings

-- the dashboard counts what was booked today
CREATE INDEX CONCURRENTLY idx_bookings_created_at ON core.bookings USING btree (created_at);

-- warning: bookings is not found: wrong schema, it exists as core.bookings
-- error: column event_date does not exist in core.bookings; nearest: date (subset of the words, type date, in the workload)

-- the customer history is sorted by date
CREATE INDEX CONCURRENTLY idx_bookings_customer_date ON core.bookings USING btree (customer_id, date);

-- skip, line 19: payments is not found: wrong schema, it exists as core.payments; idx_payments_booking_id is redundant: core.ix_core_payments_booking_id has the same definition
-- CREATE INDEX idx_payments_booking_id ON payments (booking_id);

-- warning: payments is not found: wrong schema, it exists as core.payments

-- the settlement job looks for payments that are still open
CREATE INDEX CONCURRENTLY idx_payments_status ON core.payments USING btree (status);

-- warning: payments is not found: wrong schema, it exists as core.payments

-- finance goes through the failed payments of the week
CREATE INDEX CONCURRENTLY idx_payments_created_at ON core.payments USING btree (created_at);

-- warning: customers is not found: wrong schema, it exists as core.customers
-- error: column email does not exist in core.customers; nearest: email_encrypted (subset of the words, type character varying(500), in the workload)

-- customers log in with their email address
CREATE INDEX CONCURRENTLY idx_customers_email ON core.customers USING btree (email_encrypted);

-- warning: customers is not found: wrong schema, it exists as core.customers
-- error: column phone does not exist in core.customers; nearest: phone_encrypted (subset of the words, type character varying(500), in the workload)

-- the call centre finds a caller by phone number
CREATE INDEX CONCURRENTLY idx_customers_phone ON core.customers USING btree (phone_encrypted);
