"""Several stages in one call: what a router asks of a shard that holds them all, and what that answers."""

from dataclasses import dataclass

from protos.headrace.v1 import cascade_service_pb2 as pb
from protos.headrace.v1 import types_pb2
from services.codec.candidates import candidates_from_proto, candidates_to_proto, read_candidates
from services.codec.context import context_to_proto, read_context
from services.codec.filter import filter_to_proto, read_filter
from services.codec.moments import duration_from_proto, duration_to_proto
from services.codec.release import MAX_PRE_RANKED, MAX_RETRIEVED, read_exponents
from services.codec.stage_calls import read_attributes, read_count
from services.codec.stages import (
    STAGE_TO_PROTO,
    model_version_to_proto,
    read_model_version,
    read_stage,
)
from services.codec.violations import Field, collecting
from shards.candidates import Candidates
from shards.cascade import CascadeCall, CascadeStep, StepDone
from shards.release import ModelVersion, Stage

_ORDER = (Stage.RETRIEVAL, Stage.PRE_RANKING, Stage.RANKING)


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeAnswer:
    """Who answered, how long the call waited for a worker, the steps that were done and what they left."""

    shard_id: str
    queue_s: float
    done: tuple[StepDone, ...]
    candidates: Candidates


def cascade_to_proto(call: CascadeCall) -> pb.RunRequest:
    """Return the message of a call."""
    return pb.RunRequest(
        context=context_to_proto(call.context),
        steps=[_step_to_proto(step) for step in call.steps],
        candidates=candidates_to_proto(call.candidates),
        filter=filter_to_proto(call.filter),
        attributes=call.attributes,
        attribute_count=call.attribute_count,
        merged=call.merged,
        returned=call.returned,
        task_exponents=dict(call.task_exponents),
    )


def _step_to_proto(step: CascadeStep) -> pb.CascadeStep:
    return pb.CascadeStep(
        stage=STAGE_TO_PROTO[step.stage],
        channel=step.channel,
        model=model_version_to_proto(step.model),
        keep=step.keep,
        weight=step.weight,
        quota=step.quota,
        intake=step.intake,
    )


def cascade_from_proto(message: pb.RunRequest) -> CascadeCall:
    """Return the call; raises `InvalidInput` with every field at fault."""
    with collecting() as at:
        steps = tuple(_read_step(step, at.child("steps").element(i)) for i, step in enumerate(message.steps))
        _check_order(steps, at.child("steps"))
        return CascadeCall(
            context=read_context(message.context, at.child("context")),
            steps=steps,
            candidates=read_candidates(message.candidates, at.child("candidates"), at_most=MAX_PRE_RANKED),
            merged=read_count(message.merged, at.child("merged")),
            returned=read_count(message.returned, at.child("returned")),
            filter=read_filter(message.filter, at.child("filter")),
            task_exponents=read_exponents(message.task_exponents, at.child("task_exponents")),
            attributes=read_attributes(message.attributes, at.child("attributes")),
            attribute_count=read_count(message.attribute_count, at.child("attribute_count")),
        )


def _read_step(message: pb.CascadeStep, at: Field) -> CascadeStep:
    stage = read_stage(message.stage, at.child("stage"))
    if stage is Stage.RETRIEVAL:
        at.child("channel").check_set(message.channel)
        at.child("keep").check_between(message.keep, 1, MAX_RETRIEVED)
    else:
        at.child("intake").check_between(message.intake, 1, MAX_PRE_RANKED)
    return CascadeStep(
        stage=stage,
        model=read_model_version(message.model, at.child("model")),
        keep=read_count(message.keep, at.child("keep")),
        channel=message.channel,
        weight=message.weight,
        quota=read_count(message.quota, at.child("quota")),
        intake=message.intake,
    )


def _check_order(steps: tuple[CascadeStep, ...], at: Field) -> None:
    """Refuse what is no part of a cascade: nothing, or stages in another order."""
    order = [_ORDER.index(step.stage) for step in steps]
    at.check(order == sorted(order), "must be in the order of the cascade")
    at.check(bool(steps), "must not be empty")
    scorers = [step.stage for step in steps if step.stage is not Stage.RETRIEVAL]
    at.check(len(set(scorers)) == len(scorers), "must not repeat a scoring stage")


def cascade_answer_to_proto(answer: CascadeAnswer) -> pb.RunResponse:
    """Return the message of an answer."""
    return pb.RunResponse(
        headers=[
            types_pb2.StageHeader(
                shard_id=answer.shard_id,
                model=model_version_to_proto(done.model),
                queue_time=duration_to_proto(answer.queue_s),
                compute_time=duration_to_proto(done.compute_s),
                candidates=done.candidates,
            )
            for done in answer.done
        ],
        candidates=candidates_to_proto(answer.candidates),
    )


def cascade_answer_from_proto(message: pb.RunResponse) -> CascadeAnswer:
    """Return the answer; raises `InvalidInput` where its candidates are malformed or nobody answered."""
    with collecting() as at:
        at.child("headers").check(bool(message.headers), "must not be empty")
    first = message.headers[0]
    return CascadeAnswer(
        shard_id=first.shard_id,
        queue_s=duration_from_proto(first.queue_time),
        done=tuple(
            StepDone(
                model=ModelVersion(header.model.model, header.model.version),
                compute_s=duration_from_proto(header.compute_time),
                candidates=header.candidates,
            )
            for header in message.headers
        ),
        candidates=candidates_from_proto(message.candidates),
    )
