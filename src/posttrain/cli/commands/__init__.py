"""All commands: one file and one line here for each."""

from __future__ import annotations

from collections.abc import Callable

from posttrain.cli.commands import (
    chat,
    compare,
    data,
    doctor,
    env,
    eval_,
    generate,
    init,
    launch,
    list_,
    merge,
    push,
    report,
    run,
    schema,
    serve,
    show,
    validate,
)

COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("init", init.init),
    ("doctor", doctor.doctor),
    ("run", run.run),
    ("validate", validate.validate),
    ("data", data.data),
    ("compare", compare.compare),
    ("report", report.report),
    ("generate", generate.generate),
    ("chat", chat.chat),
    ("serve", serve.serve),
    ("merge", merge.merge),
    ("push", push.push),
    ("launch", launch.launch),
    ("list", list_.list_),
    ("show", show.show),
    ("schema", schema.schema),
    ("eval", eval_.eval_),
    ("env", env.env),
)
