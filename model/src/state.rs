//! What `show` shows. Each type serializes to JSON and displays as the table that an engineer expects.
