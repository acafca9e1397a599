-- Undo plan.sql, as revised by indexlab audit.
DROP INDEX CONCURRENTLY IF EXISTS core.idx_customers_phone;
DROP INDEX CONCURRENTLY IF EXISTS core.idx_customers_email;
DROP INDEX CONCURRENTLY IF EXISTS core.idx_payments_created_at;
DROP INDEX CONCURRENTLY IF EXISTS core.idx_payments_status;
DROP INDEX CONCURRENTLY IF EXISTS core.idx_bookings_customer_date;
DROP INDEX CONCURRENTLY IF EXISTS core.idx_bookings_created_at;
DROP INDEX CONCURRENTLY IF EXISTS core.idx_bookings_status;
DROP INDEX CONCURRENTLY IF EXISTS core.idx_bookings_date;
