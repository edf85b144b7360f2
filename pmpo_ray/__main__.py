"""`python -m pmpo_ray` is the `pmpo` command."""

from pmpo_ray.cli.main import main

if __name__ == "__main__":
    main()
