"""What learns in a trial: the network, its optimizer, the draws and the average of the weights."""

import math
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers, count_batches, cut_epoch, plain_batches, train_batches
from data_pipeline.errors import DataError
from data_pipeline.mixing import MIXINGS, Mix
from data_pipeline.sampling import SAMPLINGS, WaferDraws, choose_subset
from models import build_model
from search.errors import TrialFailed
from search.trial.averaging import WeightAverage
from search.trial.data import TrialData
from search.trial.evaluation import Judgement, autocast, choose_dtype, judge_batches
from search.trial.frozen import FrozenBackbone, open_frozen, views_of
from search.trial.losses import LOSSES
from search.trial.optimization import OPTIMIZERS, SCHEDULES
from search.trial.params import TrialParams
from search.trial.prediction import DecideFor, Predictor, shift_prior

State = dict[str, Any]


class Learner:
    """Everything that a configuration makes of the data, and the steps of learning.

    Args:
        params: The configuration.
        data: Wafers on the device to train on.
        generator: On the CPU; the only source of randomness, here and later.
    """

    def __init__(self, params: TrialParams, data: TrialData, *, generator: torch.Generator) -> None:
        self._params, self._data, self._generator = params, data, generator
        self.device = data.train.labels.device
        self.dtype = choose_dtype(params.precision, self.device)
        rows = None
        if params.subset < 1:
            rows = torch.from_numpy(choose_subset(data.train.labels.cpu().numpy(), fraction=params.subset))
        self._train = data.train if rows is None else data.train.select(rows)
        self._steps_per_epoch = count_batches(data.epoch_samples, params.batch_size)
        self.model = build_model(
            params.model.name, n_classes=data.n_classes, options=params.model.options, seed=_draw_seed(generator)
        ).to(self.device)
        self._optimizer = OPTIMIZERS[params.optimizer.name](
            self.model, lr=params.lr, weight_decay=params.weight_decay, **params.optimizer.options
        )
        self._average = (
            WeightAverage(self.model, horizon=params.ema * self._steps_per_epoch) if params.ema > 0 else None
        )
        self._open_features(rows)
        self._plan_classes()
        self._lessons = self._prepare_lessons(rows)

    def _open_features(self, rows: Tensor | None) -> None:
        """Where the backbone never changes, its features are looked up instead of computed in every epoch."""
        open_part = partial(open_frozen, self.model, folder=self._data.features, dtype=self.dtype)
        self._features = open_part(self._data.train, rows=rows) if self._params.mixing.name == "none" else None
        self._val_features: FrozenBackbone | None = None
        if self._data.val is not None and self._params.test_time == "single":
            self._val_features = open_part(self._data.val)

    def _plan_classes(self) -> None:
        """Count the classes, and derive from that what is drawn, the loss and the decision."""
        params = self._params
        counts = torch.bincount(self._train.labels, minlength=self._data.n_classes)
        plan = SAMPLINGS[params.sampling.name](counts.cpu().numpy(), **params.sampling.options)
        self._draws = WaferDraws(self._train.labels, plan=plan, epoch_samples=self._data.epoch_samples)
        self._loss = LOSSES[params.loss.name](counts, **params.loss.options)
        self._natural, self._drawn = counts.cpu(), torch.from_numpy(plan.end)
        self._shift = self.shift_for(params.decide_for)
        spoken = self._drawn.double() * self._loss.prior_tilt.double() * self._shift.double().cpu().exp()
        self._shares = (spoken / spoken.sum()).float()

    def _prepare_lessons(self, rows: Tensor | None) -> Tensor | None:
        """Return the teacher's probabilities of the training wafers, for the class shares that the logits speak of."""
        if self._data.teacher is None:
            return None
        equal = self._data.teacher.log_probabilities
        spoken = self._drawn.to(self.device) * self._loss.prior_tilt.to(self.device)
        return ((equal if rows is None else equal[rows]) + spoken.clamp_min(1e-12).log()).float().softmax(1)

    def shift_for(self, wanted: DecideFor) -> Tensor:
        """Compute what a decision for these class shares adds to the network's logits, shape (K,), on the device."""
        tilt = self._loss.prior_tilt
        return shift_prior(wanted, natural=self._natural, drawn=self._drawn, tilt=tilt).to(self.device)

    @property
    def lr(self) -> float:
        """Learning rate of the last step, read from the optimizer."""
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def predictor(self) -> Predictor:
        """The network as it is judged and kept: averaged if asked for, with its rule of decision."""
        return self._decide_with(self.model if self._average is None else self._average.model)

    def _decide_with(self, network: nn.Module) -> Predictor:
        shift, shares = self._shift, self._shares
        return Predictor(network, shift=shift, shares=shares, test_time=self._params.test_time).to(self.device)

    def learn(self, epoch: int) -> tuple[float, float]:
        """Train for one nominal epoch; return the mean loss and the accuracy.

        Raises:
            TrialFailed: If the loss becomes NaN or infinite: on the CPU in that very step, elsewhere at the epoch's
                end, because asking a GPU in every step would slow all of them.
        """
        losses: list[Tensor] = []
        sizes: list[int] = []
        n_right = torch.zeros((), dtype=torch.int64, device=self.device)
        first_step = (epoch - 1) * self._steps_per_epoch
        network, batches, drawn = self._draw_epoch(epoch)
        parts = cut_epoch(len(drawn), self._params.batch_size)
        self.model.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            _seed_dropout(_draw_seed(self._generator), self.device)
            for part, (inputs, labels) in zip(parts, batches, strict=False):
                self._set_lr(first_step + len(losses))
                lessons = None if self._lessons is None else self._lessons[drawn[part].to(self.device)]
                loss, n_right_now = self._step(network, inputs, labels, lessons)
                losses.append(loss)
                sizes.append(len(labels))
                n_right += n_right_now
                if self.device.type == "cpu" and not math.isfinite(loss.item()):
                    break
        total = torch.stack(losses).double().cpu()  # the only time in an epoch that a GPU is waited for
        _check_finite(total, epoch=epoch, first_step=first_step)
        n_wafers = sum(sizes)
        return (total * torch.tensor(sizes)).sum().item() / n_wafers, n_right.item() / n_wafers

    def judge(self, val: EncodedWafers) -> Judgement:
        """Judge the predictor on the validation part."""
        predictor, batches = self.predictor, plain_batches(val)
        if self._val_features is not None:
            with suppress(DataError):  # as in training
                batches = self._val_features.plain_batches()
                predictor = self._decide_with(predictor.network.head)  # type: ignore[arg-type]
        return judge_batches(predictor, batches, n_classes=self._data.n_classes, dtype=self.dtype)

    def capture(self, epoch: int) -> State:
        """Return what it takes to go on from here in another process; live, not copied."""
        average = {} if self._average is None else {"average": self._average.state_dict()}
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "draws": self._draws.state_dict(),
            "generator": self._generator.get_state(),
            **average,
        }

    def restore(self, state: State) -> int:
        """Go back to where a state was captured; return the epochs already done."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._draws.load_state_dict(state["draws"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._generator.set_state(state["generator"])
        return int(state["epoch"])

    def _draw_epoch(self, epoch: int) -> tuple[nn.Module, Any, Tensor]:
        """Draw the epoch's wafers and what is done to them.

        Returns:
            What computes logits, batches of its input, and the positions of the drawn wafers, on the CPU.
        """
        params, generator = self._params, self._generator
        drawn = self._draws.next_epoch(generator, progress=(epoch - 1) / max(params.epochs - 1, 1))
        choices = AUGMENTS[params.augment.name](len(drawn), generator, **params.augment.options)
        if self._features is not None and (views := views_of(choices, n=len(drawn))) is not None:
            try:
                batches = self._features.train_batches(drawn, views, batch_size=params.batch_size)
                return self._features.head, batches, drawn
            except DataError:  # a full disk, say: the features only save time
                self._features = None
        return self.model, train_batches(self._train, drawn, choices, batch_size=params.batch_size), drawn

    def _set_lr(self, step: int) -> None:
        params = self._params
        progress = (step + 0.5) / (params.epochs * self._steps_per_epoch)
        lr = params.lr * SCHEDULES[params.schedule.name](progress, **params.schedule.options)
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def _step(
        self, network: nn.Module, inputs: Tensor, labels: Tensor, lessons: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Learn from one batch; return its mean loss and how many wafers were called right, both on the device."""
        mix: Mix | None = MIXINGS[self._params.mixing.name](len(labels), self._generator, **self._params.mixing.options)
        keep = 1.0
        if mix is not None:
            mix = mix.to(self.device)
            inputs, keep = mix.apply(inputs)
        with autocast(self.device, self.dtype):
            logits_NK: Tensor = network(inputs)
        loss = self._compare(logits_NK.float(), labels, lessons)
        if mix is not None:
            partners = None if lessons is None else lessons[mix.partner]
            loss = keep * loss + (1 - keep) * self._compare(logits_NK.float(), labels[mix.partner], partners)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._params.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._params.grad_clip)
        self._optimizer.step()
        if self._average is not None:
            self._average.update()
        # Of a mixed picture, the wafer that more of it shows must be called.
        shown = labels if mix is None or keep >= 0.5 else labels[mix.partner]
        return loss.detach(), (logits_NK.detach().argmax(1) == shown).sum()

    def _compare(self, logits_NK: Tensor, labels: Tensor, lessons: Tensor | None) -> Tensor:
        """Return the mean loss against the labels, and against the teacher where there is one."""
        loss: Tensor = self._loss(logits_NK, labels)
        if lessons is None or self._data.teacher is None:
            return loss
        weight = self._data.teacher.weight
        return (1 - weight) * loss + weight * cross_entropy(logits_NK, lessons)


def _seed_dropout(seed: int, device: torch.device) -> None:
    """Dropout knows only the global generators."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _check_finite(losses: Tensor, *, epoch: int, first_step: int) -> None:
    bad = torch.nonzero(~torch.isfinite(losses)).flatten()
    if len(bad) == 0:
        return
    at = int(bad[0])
    last = f"; the last finite one was {losses[at - 1].item():.4g}" if at > 0 else ""
    raise TrialFailed(
        "diverged", f"loss became {losses[at].item()} in epoch {epoch} (step {first_step + at + 1}){last}"
    )


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31, (1,), generator=generator))
