"""`python -m posttrain`, for torchrun and accelerate launch."""

import os

from posttrain.cli.app import main

if __name__ == "__main__":
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        main()
    else:
        from posttrain.distributed.launch import leave

        try:
            main()
        except BaseException as error:
            leave(error)
        leave(SystemExit())
