"""From records to what people read: the frame of results, statistics, tables, figures."""
