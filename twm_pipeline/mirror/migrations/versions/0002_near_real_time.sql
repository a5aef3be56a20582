-- Hooks that this product made at the vendors; what is not listed here is somebody else's.
CREATE TABLE twm.hooks (
    source text NOT NULL,
    hook_id text NOT NULL,
    event text NOT NULL,
    url text NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    checked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, hook_id)
);

-- Objects that a delivery named and the vendor does not know (404), to be looked at once more (DESIGN D7).
CREATE TABLE twm.second_looks (
    source text NOT NULL,
    stream text NOT NULL,
    object_id text NOT NULL,
    due_at timestamptz NOT NULL,
    PRIMARY KEY (source, stream, object_id)
);
