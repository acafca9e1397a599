-- Indexes for the booking tables, as collected in the team's planning meeting.

-- the account page lists the bookings of one customer
CREATE INDEX idx_bookings_customer_id ON bookings (customer_id);

-- the operations desk looks at everything that happens on one day
CREATE INDEX idx_bookings_date ON bookings (event_date);

-- the pending counter in the navigation bar is on every page
CREATE INDEX idx_bookings_status ON bookings (status);

-- the dashboard counts what was booked today
CREATE INDEX idx_bookings_created_at ON bookings (created_at);

-- the customer history is sorted by date
CREATE INDEX idx_bookings_customer_date ON bookings (customer_id, event_date);

-- every booking page shows its payment
CREATE INDEX idx_payments_booking_id ON payments (booking_id);

-- the settlement job looks for payments that are still open
CREATE INDEX idx_payments_status ON payments (status);

-- finance goes through the failed payments of the week
CREATE INDEX idx_payments_created_at ON payments (created_at);

-- customers log in with their email address
CREATE INDEX idx_customers_email ON customers (email);

-- the call centre finds a caller by phone number
CREATE INDEX idx_customers_phone ON customers (phone);
