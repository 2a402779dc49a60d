"""The optimizer of a trainer, and the learning rates that it makes its steps with."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer

from posttrain.errors import RecipeError
from posttrain.train.optimizers import built_optimizer
from posttrain.train.optimizers._groups import grouped, rates_of
from posttrain.train.optimizers._optimizer import Trained
from posttrain.train.optimizers.adamw import AdamW
from posttrain.train.options import Execution


class Optimized(Trainer):
    """The part of `PostTrainer` that makes optimizer and schedule. Its constructor sets what is declared here."""

    _execution: Execution
    _progress = 0.0
    """The share of the run that is done, or of its budget that is spent, where the step begins."""

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """See transformers; by name, or of parameters with rates of their own, where we are told so."""
        config, rules = self._execution.optimizer, self._execution.parameters
        if self.optimizer is not None or (config is None and not rules):
            return super().create_optimizer(model)
        of: Any = self.model if model is None else model
        try:
            rates = rates_of(of, rules, self.args.learning_rate)
        except ValueError as error:
            raise RecipeError(f"training.{error}") from error
        trained = Trained(
            groups=grouped(of, rates, self.get_decay_parameter_names(of), self.args.weight_decay),
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            epsilon=self.args.adam_epsilon,
            model=of,
        )
        self.optimizer = built_optimizer(AdamW() if config is None else config, trained)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """See transformers; of our own where the learning rate has a schedule of ours."""
        schedule = self._execution.schedule
        if schedule is not None and self.lr_scheduler is None:
            warmup, budget = self.args.get_warmup_steps(num_training_steps), self._execution.budget

            def factor(step: int) -> float:  # with a budget, of the share of it that is spent
                at = step if budget is None else round(self._progress * num_training_steps)
                return schedule(at, num_training_steps, warmup)

            of: Any = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = LambdaLR(of, factor)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _take_rate_of_this_schedule(self) -> None:
        """The next step's rate is of the schedule as it is now; the checkpoint's is of a run that may have been shorter."""
        scheduler: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        if not isinstance(scheduler, LambdaLR):
            return
        factors = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        scheduler._last_lr = [rate * factor(scheduler.last_epoch) for rate, factor in factors]
        for group, rate in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
            group["lr"] = rate

    def _take_weights_of(self, mode: str) -> None:
        """Schedule-free optimizers train other weights than those that are sampled, evaluated and saved, which all but a step
        itself sees.
        """
        if callable(switch := getattr(self.optimizer, mode, None)):
            switch()
