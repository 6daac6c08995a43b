"""What the garbage collector need not look at: it stops every thread each time that it looks."""

import gc


def set_aside_what_stays() -> None:
    """Keep the garbage collector from looking at what is there by now ever again.

    Over all the modules of torch and its like a collection takes as long as dozens of requests; over what
    comes and goes hereafter, a small part of one.
    """
    gc.collect()
    gc.freeze()
