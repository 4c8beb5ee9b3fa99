"""The demonstration's checkpoint: a tiny LLaVA-OneVision-1.5 that answers in the right format and is right sometimes.

    python -m trains.demo.warm_start --output pretrained/tiny-llavaov15

A random model earns no reward, and where nothing is ever right nothing can be reinforced. So a short supervised
phase comes first, on the `warmstart` split alone (300 scans that reinforcement learning never sees, nor evaluation):

1. with correct labels: the model learns the tags, to read a digit, to find it, to add under the thinking prompt;
2. with careless labels: about half of the answers are wrong in a regular way, as from an annotator who mistakes each
   digit for the next and carries one too many. The model keeps its perception but is no longer sure what to say.

What comes out resembles an instruction model before reinforcement learning: able, unreliable, with right and wrong
answers in most groups of rollouts. The same seed gives the same weights.
"""

from __future__ import annotations

import sys

from dataset.prompts import LAYOUTS
from trains.demo.settings import WarmStartConfig
from utils.command_line import Parser, check_output


def main(argv: list[str] | None = None) -> int:
    defaults = WarmStartConfig()
    parser = Parser(
        prog="python -m trains.demo.warm_start",
        description="Build and warm-start the demonstration's tiny checkpoint.",
    )
    parser.add_argument("--output", default="pretrained/tiny-llavaov15", help="checkpoint folder")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of weights and order of the data")
    parser.add_argument(
        "--clean-steps", type=int, default=defaults.num_clean_steps, help="default: %(default)s"
    )
    parser.add_argument(
        "--careless-steps", type=int, default=defaults.num_careless_steps, help="default: %(default)s"
    )
    parser.add_argument(
        "--layout", choices=LAYOUTS, default=defaults.layout, help="of prompts (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        check_output(args.output)
    except ValueError as error:
        parser.error(str(error))
    import torch  # only now: it takes seconds

    from trains.demo.supervised import warm_start

    torch.set_num_threads(args.threads)
    config = WarmStartConfig(
        seed=args.seed,
        num_clean_steps=args.clean_steps,
        num_careless_steps=args.careless_steps,
        layout=args.layout,
    )
    report = warm_start(args.output, config)
    print(f"{args.output}: {report['num_parameters']:,} parameters, {report['train_seconds']} s")
    for source in report["heldout_accuracy"]["greedy"]:
        greedy, sampled = (report["heldout_accuracy"][kind][source] for kind in ("greedy", "temperature_1"))
        print(f"  {source:16} held-out accuracy: greedy {greedy:.3f}, at temperature 1 {sampled:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
