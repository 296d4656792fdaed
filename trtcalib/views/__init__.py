"""Result values shown to people: tables and pictures. Views never compute results, and escape what they are given."""
