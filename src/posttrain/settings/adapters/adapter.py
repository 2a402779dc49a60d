"""What a recipe says of its model's adapter: the kind, and peft's own fields, checked by name."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.settings.adapters.fields import field_of, fields_of
from posttrain.settings.adapters.kinds import (
    BY_NAME,
    INITS,
    LORA,
    OWN_FIELDS,
    REFUSED,
    REFUSED_INITS,
    REFUSED_OPTIONS,
    AdapterKind,
    changes_base,
)
from posttrain.settings.base import Config
from posttrain.settings.other_names import nearest

Size = Annotated[int, Field(ge=1)]
KEYS = ("r", "alpha", "dropout", "target_modules", "init")
"""Which peft calls otherwise from kind to kind."""
_LORAS = {"r": 16, "alpha": 32, "dropout": 0.0}


class Adapter(Config):
    """An adapter (peft); the base model stays frozen."""

    kind: str | None = None
    """`lora` if not set; `posttrain list adapters` has all."""
    r: Size | None = None
    """Rank. 16 of LoRA, else peft's own default."""
    alpha: Size | None = None
    """The update is scaled by alpha / r (rslora: by the root of r). 32 of LoRA, else peft's own default."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """On what goes into the adapter, in training; 0 if not set."""
    target_modules: Literal["all-linear"] | list[str] | None = None
    """Names of the modules that get one, or all linear ones but the head, which is so if it is not set; of ia3, ln_tuning
    and trainable_tokens peft's own choice for the architecture."""
    init: str | bool | None = None
    """How it begins. Of LoRA: gaussian, orthogonal, mica, pissa, pissa_niter_N or olora; if not set, peft's default."""
    options: dict[str, Any] = {}
    """More fields of the kind's config in peft, by their names there: modules_to_save, trainable_token_indices, rank_pattern
    and so on."""
    continue_from: Annotated[str, Field(min_length=1)] | None = Field(default=None, alias="continue")
    """In place of all others: the folder of an adapter of this very model (a run's final/adapter), to be trained further."""

    @model_validator(mode="before")
    @classmethod
    def _is_lora_at_first(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("continue") is not None:
            return values
        kind = values.get("kind") or LORA
        if kind not in BY_NAME:
            return {**values, "kind": kind}
        known = BY_NAME[kind]
        filled: dict[str, Any] = {**(_LORAS if known.module == LORA else {}), "target_modules": known.targets}
        for name, value in filled.items():
            if values.get(name) is None:
                values = {**values, name: value}
        return {**values, "kind": kind}

    @field_validator("kind")
    @classmethod
    def _is_offered(cls, kind: str | None) -> str | None:
        if kind is None or kind in BY_NAME:
            return kind
        if kind in REFUSED:
            raise ValueError(f"{kind} is not offered: {REFUSED[kind]}")
        near = nearest(kind, BY_NAME)
        raise ValueError(f"there is no kind {kind!r}" + (f"; did you mean {near}?" if near else f": {', '.join(BY_NAME)}"))

    @field_validator("continue_from")
    @classmethod
    def _is_at_home(cls, folder: str | None) -> str | None:
        return os.path.expanduser(folder) if folder else folder

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> Adapter:
        if self.continue_from is not None:
            given = [key for key in ("kind", *KEYS) if getattr(self, key) is not None] + ["options"] * bool(self.options)
            if given:
                raise ValueError(f"continue: the adapter that lies there has its own {given[0]}; leave {given[0]} out")
            return self
        kind = self.known
        for key in KEYS:
            if getattr(self, key) is not None and field_of(kind, key) is None:
                raise ValueError(f"{key}: {self.kind} has none; its fields in peft are {', '.join(sorted(fields_of(kind)))}")
        for option in self.options:
            if (fault := self._fault(option)) is not None:
                raise ValueError(f"options: {fault}")
        if kind.module == LORA and self.init is not None:
            self._check_init()
        return self

    def _fault(self, option: str) -> str | None:
        kind = self.known
        own = fields_of(kind)
        for key in KEYS:
            if option == field_of(kind, key):
                return f"{option} is model.adapter.{key}"
        if option in kind.fixed:
            return f"{option} is what makes it {kind.name}"
        if option in OWN_FIELDS:
            return f"{option} is not for a recipe: posttrain sets it"
        twin = next((one for one in BY_NAME.values() if one.module == kind.module and option in one.fixed), None)
        if twin is not None:
            return f"{option} is kind: {twin.name}"
        if option not in own:
            near = nearest(option, own - kind.fixed.keys() - REFUSED_OPTIONS.keys())
            return f"{option} is no field of peft's {kind.config}" + (f"; did you mean {near}?" if near else "")
        return f"{option} is not offered: {REFUSED_OPTIONS[option]}" if option in REFUSED_OPTIONS else None

    def _check_init(self) -> None:
        init = str(self.init)
        refused = next((one for one in REFUSED_INITS if init.startswith(one)), None)
        if refused is not None:
            raise ValueError(f"init: {init} is not offered: {REFUSED_INITS[refused]}")
        if not isinstance(self.init, bool) and init not in INITS and not re.fullmatch(r"pissa_niter_[1-9]\d*", init):
            near = nearest(init, INITS)
            raise ValueError(
                f"init: there is no {init}; {f'did you mean {near}?' if near else 'there are ' + ', '.join(INITS)}"
            )

    @property
    def known(self) -> AdapterKind:
        """The kind and its facts; not of one that is continued."""
        assert self.kind is not None
        return BY_NAME[self.kind]

    @property
    def label(self) -> str:
        """For messages."""
        return self.kind or f"the adapter of {self.continue_from}"

    @property
    def is_lora(self) -> bool:
        """It has LoRA's matrices, or what is continued may have them."""
        return self.kind is None or self.known.module == LORA

    @property
    def changes_base(self) -> bool:
        """Its beginning is taken out of the base, so that without it the model is not the start model."""
        return changes_base(self.init)

    @property
    def starts_exactly(self) -> bool:
        """Without it the model is the start model, to the last bit."""
        if self.continue_from is not None or self.changes_base:
            return False
        return self.known.start == "same" and self.init in (None, True, "gaussian", "mica")

    @property
    def is_plain(self) -> bool:
        """LoRA on linear layers and nothing more, which is added tensor by tensor where ranks share a model."""
        if self.continue_from is not None:
            return True  # which is seen when it is there
        beside = {"modules_to_save", "trainable_token_indices"} & self.options.keys()
        return self.kind in (LORA, "rslora") and not (self.changes_base or beside)

    def for_peft(self) -> dict[str, Any]:
        """The fields of the kind's config in peft."""
        kind, fields = self.known, dict[str, Any]()
        for key in KEYS:
            if (value := getattr(self, key)) is not None:
                name = field_of(kind, key)
                assert name is not None  # it was looked up before
                fields[name] = value
        ranked = kind.ranked if self.r is not None else {}
        return {**kind.preset, **ranked, **fields, **kind.fixed, **self.options, "task_type": "CAUSAL_LM"}
