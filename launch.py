"""Entry point: ``python launch.py --config custom_configs/fit-asset.yaml``."""

from threestudio_redream.runtime.launch import main

if __name__ == "__main__":
    raise SystemExit(main())
