"""Each of the 43 known defects of the server that this one replaces has a test, or a reason why it cannot occur."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache

import pytest

from test.soak.harness import ROOT

pytestmark = pytest.mark.soak


@dataclass(frozen=True, slots=True)
class Defect:
    """tests: FILE::NAME below test/; reason: where there is none, why it cannot occur"""

    number: int
    what: str
    tests: tuple[str, ...] = ()
    reason: str = ""


DEFECTS = (
    Defect(
        1,
        "a recording over 30 s, or one that the models choke on, kills the encode process",
        (
            "encode/test_service.py::test_a_poisoned_recording_fails_alone_and_each_time_alike",
            "encode/test_service.py::test_a_model_that_cannot_be_run_is_told_as_such",
            "soak/test_poison.py::test_a_poisoned_request_is_told_and_hurts_nobody",
            "soak/test_fuzz.py::test_broken_recordings",
        ),
    ),
    Defect(
        2,
        "a voice whose first use fails makes the encode process spin for ever",
        (
            "encode/test_prompt_cache.py::test_a_failure_reaches_everyone_who_waits_and_is_not_kept",
            "soak/test_poison.py::test_a_voice_whose_first_use_failed_serves_the_next",
        ),
    ),
    Defect(
        3,
        "a streaming client that leaves kills the decode process",
        (
            "soak/test_clients.py::test_a_crowd_that_leaves_takes_its_work_along",
            "decode/test_process.py::test_aborts_at_random_moments_leave_nothing",
            "decode/test_service.py::test_an_abort_while_a_batch_runs_frees_the_state_when_it_returns",
        ),
    ),
    Defect(
        4,
        "aborted requests keep their slot: thirty of them stop the server",
        (
            "soak/test_clients.py::test_a_crowd_that_leaves_takes_its_work_along",
            "llm/test_service.py::test_an_abort_frees_everything_before_the_next_step_and_is_passed_on",
        ),
    ),
    Defect(
        5,
        "an unknown model name leaks a slot",
        (
            "server/test_schemas.py::test_an_unknown_model_is_told_the_known_ones",
            "soak/test_poison.py::test_a_poisoned_request_is_told_and_hurts_nobody",
        ),
    ),
    Defect(
        6,
        "an exception in the decode process leaves its client waiting for ever",
        (
            "decode/test_service.py::test_a_poisoned_request_fails_alone",
            "decode/test_service.py::test_when_a_batch_raises_each_member_is_tried_alone",
            "server/test_http_manager.py::test_a_request_past_its_deadline_fails_and_is_aborted",
        ),
    ),
    Defect(
        7,
        "an empty batch is an exception, and decoding keeps new work from being read",
        (
            "decode/test_scheduler.py::test_nothing_ready_is_no_batch",
            "decode/test_workers.py::test_results_wake_the_main_thread_and_come_once",
        ),
    ),
    Defect(
        8,
        "an exception in the language model, such as a full pool, ends its loop silently",
        (
            "llm/test_service.py::test_one_request_that_breaks_a_step_does_not_break_the_others",
            "llm/test_scheduler.py::test_a_sequence_whose_text_grows_gets_more_slots_before_it_goes_on",
            "soak/test_scarcity.py::test_more_than_the_pool_holds_waits_its_turn",
        ),
    ),
    Defect(
        9,
        "children outlive a parent that was killed, and dead ones look alive",
        (
            "test_child.py::test_a_child_dies_with_its_parent",
            "test_child.py::test_a_child_that_began_after_its_parents_end_ends_too",
            "soak/test_faults.py::test_nothing_survives_the_supervisor",
        ),
    ),
    Defect(
        10,
        "nobody looks after children once they have started",
        (
            "soak/test_faults.py::test_a_stage_is_replaced",
            "soak/test_faults.py::test_gunicorn_is_replaced",
            "soak/test_faults.py::test_an_http_worker_is_replaced",
        ),
    ),
    Defect(
        11,
        "finish before any text makes a bistream connection wait for ever",
        (
            "server/test_websocket.py::test_finishing_before_any_text_is_an_empty_answer",
            "soak/test_poison.py::test_a_conversation_that_ends_before_it_begins_is_closed",
        ),
    ),
    Defect(
        12,
        "a sequence without a single token is an exception",
        (
            "decode/test_service.py::test_an_empty_segment_ends_with_an_empty_last_chunk",
            "llm/test_bistream.py::test_text_that_ends_without_ever_coming_gives_nothing",
            "server/test_request_state.py::test_a_request_without_any_audio_fails_and_says_why",
        ),
    ),
    Defect(
        13,
        "a voice that is evicted while it is used becomes another client's",
        (
            "soak/test_scarcity.py::test_a_voice_evicted_while_in_use_is_nobody_elses",
            "encode/test_service.py::test_a_voice_that_is_evicted_while_it_is_used_stays_whose_it_is",
            "encode/test_prompt_cache.py::test_nobody_ever_gets_the_value_of_another_key",
        ),
    ),
    Defect(
        14,
        "a new HTTP worker wipes the marks of voices in use",
        ("soak/test_faults.py::test_an_http_worker_is_replaced",),
        "voices are in no shared memory: an encode process has its own, and sends the features with the work",
    ),
    Defect(
        15,
        "each HTTP worker has its own list of what is in the shared cache",
        ("encode/test_prompt_cache.py::test_concurrent_misses_compute_once", "soak/test_load.py::*"),
        "HTTP workers have no voices",
    ),
    Defect(
        16,
        "a new HTTP worker begins to count at 0: two requests get one id and one another's audio",
        (
            "server/test_http_manager.py::test_requests_with_the_same_id_at_once_get_their_own_audio",
            "soak/test_faults.py::test_an_http_worker_is_replaced",
        ),
    ),
    Defect(
        17,
        "all HTTP workers listen at one address, and messages say not whom they are for",
        ("test_transport.py::test_addresses_name_stage_and_index", "soak/test_load.py::*"),
    ),
    Defect(
        18,
        "finished audio is copied again and again until it is released",
        reason="chunks are handed on as they come and forgotten with it: RequestState keeps what nobody has taken",
    ),
    Defect(
        19,
        "samples at full scale wrap to the other end",
        ("decode/test_service.py::test_loud_samples_are_clipped_not_wrapped",),
    ),
    Defect(
        20,
        "voices are keyed by a hash that can be forged",
        ("test_audio.py::test_the_hash_depends_on_samples_and_rate_and_on_nothing_else",),
        "the key is SHA-256 of the samples; the transcript is part of a request, not of a voice",
    ),
    Defect(
        21,
        "one model cannot have two decode processes",
        (
            "soak/test_load.py::*",
            "llm/test_service.py::test_segments_go_to_the_least_loaded_decode_process_and_stay_there",
        ),
    ),
    Defect(
        22,
        "a second encode process gets no work",
        (
            "server/test_http_manager.py::test_encode_processes_share_the_work_and_one_that_is_lost_gets_none",
            "soak/test_scarcity.py::test_a_voice_evicted_while_in_use_is_nobody_elses",
        ),
    ),
    Defect(
        23,
        "which process has which GPU cannot be chosen",
        (
            "test_config.py::test_placement_gives_the_llm_a_gpu_for_itself_where_there_are_enough",
            "test_config.py::test_placement_can_be_given",
        ),
    ),
    Defect(
        24,
        "decode processes build one TensorRT file at the same time, for whichever GPU",
        ("decode/test_backend.py::test_a_gpu_runs_graphs_or_tensorrt_and_the_reason_is_given",),
        "no plan is built at start: the flow estimator runs on torch, and the log says why",
    ),
    Defect(
        25,
        "prefill batches cannot be smaller than the longest request; limits are plain asserts",
        (
            "test_config.py::test_prefill_may_be_cut_smaller_than_the_longest_request",
            "test_config.py::test_a_value_that_cannot_be_is_refused_with_flag_value_and_limit",
        ),
    ),
    Defect(
        26,
        "`--load_trt False` means True, and flags are parsed that nothing reads",
        (
            "test_flags.py::test_a_boolean_means_what_it_says",
            "ops/test_documents.py::test_flags_are_those_of_the_server",
        ),
    ),
    Defect(
        27,
        "batches over 16 fall back to a slow path",
        ("llm/test_engine.py::test_same_seed_gives_the_same_tokens_alone_and_in_any_batch",),
        "there is one path for batches of any size up to --gpt_paral_num",
    ),
    Defect(
        28,
        "requests need megabytes of shared memory each, and long chunks hit an assert",
        reason="there is no shared memory (the harness of these tests looks); messages are as long as they are",
    ),
    Defect(
        29,
        "shared memory is left behind by a crash, and another server's is unlinked",
        (
            "soak/test_faults.py::test_nothing_survives_the_supervisor",
            "server/test_run_dir.py::test_two_servers_cannot_share_a_folder",
            "soak/test_start_failures.py::test_a_run_dir_in_use_is_left_alone",
        ),
    ),
    Defect(
        30,
        "the default host cannot be reached from outside a container",
        ("test_config.py::test_defaults_are_those_of_the_deployment_guide",),
        "the deployment guide has this default; --host 0.0.0.0 is documented",
    ),
    Defect(
        31,
        "a fixed seed at start makes audio depend on the traffic",
        (
            "soak/test_load.py::*",
            "llm/test_engine.py::test_same_seed_gives_the_same_tokens_alone_and_in_any_batch",
        ),
    ),
    Defect(
        32,
        "sleeps in every loop cost tens of milliseconds before the first audio",
        (
            "llm/test_engine.py::test_new_sequences_are_admitted_every_few_steps_but_at_once_where_none_runs",
            "decode/test_workers.py::test_results_wake_the_main_thread_and_come_once",
        ),
        "loops wait for messages, not for time",
    ),
    Defect(
        33,
        "reading text and recordings holds up the event loop of the HTTP worker",
        (
            "server/test_api_http.py::test_a_large_recording_does_not_hold_up_the_others",
            "encode/test_service.py::test_what_needs_milliseconds_does_not_wait_behind_recordings",
        ),
    ),
    Defect(
        34,
        "sentences of a request are generated one after another",
        (
            "encode/test_service.py::test_a_request_is_planned_and_its_segments_follow_in_order",
            "server/test_request_state.py::test_chunks_in_any_order_are_heard_in_one",
            "soak/test_poison.py::test_sentences_of_one_request_are_generated_together",
        ),
    ),
    Defect(
        35,
        "probes say that all is well whatever happens, or synthesise to find out",
        (
            "server/test_routes_ops.py::test_a_probe_takes_milliseconds_and_asks_no_other_process",
            "soak/test_faults.py::test_a_stage_is_replaced",
        ),
    ),
    Defect(
        36,
        "metrics are never written, or differ from worker to worker",
        (
            "test_observe.py::test_processes_add_up_and_the_dead_keep_their_counts_but_not_their_gauges",
            "server/test_routes_ops.py::test_metrics_tell_outcomes_routes_and_how_well_streams_played",
            "soak/test_load.py::*",
        ),
    ),
    Defect(
        37,
        "answers have no content type, and errors after the first byte are a short 200",
        (
            "server/test_routes_native.py::test_a_multipart_request_gets_raw_samples_and_what_they_are",
            "server/test_audio_stream.py::test_an_error_in_the_middle_breaks_the_connection",
            "soak/test_faults.py::test_a_stage_is_replaced",
        ),
    ),
    Defect(
        38,
        "a client that leaves is not noticed: its audio is made to the end",
        (
            "server/test_audio_stream.py::test_a_client_that_leaves_in_the_middle_aborts",
            "soak/test_clients.py::test_a_crowd_that_leaves_takes_its_work_along",
        ),
    ),
    Defect(
        39,
        "speed is not checked, and not served in streams",
        (
            "server/test_routes_native.py::test_bad_input_gets_its_status_and_names_the_field",
            "soak/test_poison.py::test_a_poisoned_request_is_told_and_hurts_nobody",
            "soak/test_poison.py::test_speed_is_served_in_streams",
        ),
    ),
    Defect(
        40,
        "bistream connections are closed by accident, and know neither ping nor cancel nor an end",
        (
            "server/test_websocket.py::test_pings_are_answered_at_any_time",
            "server/test_websocket.py::test_cancel_ends_at_once_and_aborts",
            "server/test_websocket.py::test_a_client_that_leaves_aborts",
            "soak/test_fuzz.py::test_broken_conversations",
        ),
    ),
    Defect(
        41,
        "uploads and texts have no limit; a line is logged for each poll",
        (
            "server/test_body.py::test_the_size_limit_holds_without_a_content_length",
            "server/test_body.py::test_a_content_length_over_the_limit_is_refused_before_reading",
            "server/test_http_manager.py::test_a_finished_request_has_one_line_that_ends_in_its_cost",
            "soak/test_poison.py::test_a_poisoned_request_is_told_and_hurts_nobody",
        ),
    ),
    Defect(
        42,
        "SIGTERM kills what is being answered",
        (
            "soak/test_faults.py::test_sigterm_finishes_what_is_accepted",
            "server/test_supervisor.py::test_draining_ends_after_its_time",
        ),
    ),
    Defect(
        43,
        "version 3 of the model speaks its prompt unless the client adds the system prompt",
        (
            "encode/test_frontend.py::test_version_3_finds_its_system_prompt_before_the_transcript",
            "encode/test_frontend.py::test_every_segment_begins_with_the_prefix_on_request",
        ),
    ),
)


@cache
def _tests_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "test" / file).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in tree.body if isinstance(node, functions)]
    return frozenset(name for name in names if name.startswith("test_"))


def test_all_are_listed_once() -> None:
    assert [defect.number for defect in DEFECTS] == list(range(1, 44))


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: str(defect.number))
def test_each_has_a_test_or_a_reason(defect: Defect) -> None:
    assert defect.tests or defect.reason
    for test in defect.tests:
        file, _, name = test.partition("::")
        assert name in _tests_in(file) or (name == "*" and _tests_in(file)), f"there is no test {test}"
