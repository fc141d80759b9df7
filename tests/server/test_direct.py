"""A document that is answered without graphql-core's executor is answered as by it."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any, cast

import pytest
from graphql import ExecutionResult, GraphQLSchema, execute
from graphql.execution import Executor

from keystead.errors import DecryptionError
from keystead.server.graphql.context import Request
from keystead.server.graphql.direct import Direct
from keystead.server.graphql.documents import Documents, Prepared
from keystead.server.graphql.resolvers import resolved_directly
from keystead.server.graphql.schema import new_schema
from tests.server.clients import GENERATE, SET_PASSCODE, SET_PIN, VERIFY_PASSCODE, VERIFY_PIN

INPUT = "EncryptedVerifyPasscodeInput"
DIRECT = [
    SET_PASSCODE,
    VERIFY_PASSCODE,
    SET_PIN,
    VERIFY_PIN,
    f"mutation ($input: {INPUT}!) {{ right: verifyUserPasscode(input: $input) }}",
    "mutation Revoke($input: String!) { revokeDevice(deviceId: $input) }",
    "mutation D($input: DecryptDataInput!) { decryptData(input: $input) }",
    "query ($input: Float!) { getEncryptionMetricsSummary(timeframeHours: $input) }",
]
EXECUTED = [
    GENERATE,
    "{ __typename }",
    "{ getEncryptionMetricsSummary }",
    "query ($input: Float) { getEncryptionMetricsSummary(timeframeHours: $input) }",
    "query ($input: Float! = 1) { getEncryptionMetricsSummary(timeframeHours: $input) }",
    'mutation { revokeDevice(deviceId: "a") }',
    "mutation ($input: String!) { revokeDevice(deviceId: $input) @skip(if: false) }",
    "mutation ($input: String!) { ... { revokeDevice(deviceId: $input) } }",
    "mutation ($input: String!) { ...F } fragment F on Mutation { revokeDevice(deviceId: $input) }",
    "mutation ($id: String!) { verifyUserPasscode(input: {encryptedPasscode: $id, keyId: $id}) }",
    "mutation M($input: String!) { revokeDevice(deviceId: $input) } query Q { getEncryptionMetricsSummary }",
]
GIVEN: dict[str, Any] = {"encryptedPasscode": "YQ==", "keyId": "k"}
VALUES: list[Any] = [
    GIVEN,
    {**GIVEN, "passwordAuthType": "PASSCODE", "algorithm": None, "payloadVersion": 2},
    {**GIVEN, "passwordAuthType": "NONE"},
    {**GIVEN, "payloadVersion": 2.0},
    {**GIVEN, "payloadVersion": None},
    {**GIVEN, "keyId": None},
    {**GIVEN, "algorithm": "RSA_OAEP_SHA256"},
    {**GIVEN, "payloadVersion": True},
    {**GIVEN, "keyId": 1},
    {**GIVEN, "keyId": ["k"]},
    {**GIVEN, "more": "x"},
    {"keyId": "k"},
    {"keyId": "k", "encryptedPin": "YQ=="},
    {"keyId": "k", "encryptedData": "YQ=="},
    [GIVEN],
    {},
    "text",
    2,
    1e400,
    None,
]
ANSWERS = [True, False, "text", 5, DecryptionError("it does not open"), ValueError("a fault"), RecursionError()]


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return resolved_directly(new_schema(is_development=False))


@pytest.fixture(scope="module")
def documents(schema: GraphQLSchema) -> Documents:
    return Documents(schema, shows_itself=False)


def prepared(documents: Documents, text: str) -> tuple[Prepared, Direct]:
    made = documents.prepare(text)
    assert made.direct is not None
    return made, made.direct


@pytest.mark.parametrize("text", EXECUTED)
def test_what_is_out_of_the_ordinary_is_for_the_executor(documents: Documents, text: str) -> None:
    made = documents.prepare(text)
    assert not made.errors
    assert made.direct is None


@pytest.mark.parametrize("text", DIRECT)
def test_a_direct_answer_is_the_executors(
    schema: GraphQLSchema, documents: Documents, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, taken = cast(Request, object()), list[Any]()
    answered = failed = 0
    field = documents.prepare(text).operation(None)
    [root] = [kind for kind in (schema.query_type, schema.mutation_type) if kind and field in kind.fields]
    answer: Any = None

    async def resolve(source: object, info: Any, **arguments: Any) -> Any:
        taken.append((source, info.context, arguments))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(root.fields[str(field)], "resolve", resolve)
    made, direct = prepared(Documents(schema, shows_itself=False), text)

    async def by_executor(variables: dict[str, Any]) -> ExecutionResult:
        assert made.document is not None
        done = execute(schema, made.document, None, request, variables, hide_suggestions=True, executor_class=Executor)
        return done if isinstance(done, ExecutionResult) else await done

    for answers, variables in product(ANSWERS, [*({"input": value, "more": 1} for value in VALUES), {}]):
        answer = answers
        taken.clear()
        expected = asyncio.run(by_executor(variables))
        arguments = direct.arguments(variables)
        if arguments is None:
            assert expected.errors
            assert not taken
            continue
        assert_alike(asyncio.run(direct.execute(request, arguments)), expected)
        assert taken[0] == taken[1]
        answered += expected.data is not None
        failed += expected.data is None
    assert answered > 0
    assert failed > 0


def assert_alike(ours: ExecutionResult, theirs: ExecutionResult) -> None:
    assert ours.formatted == theirs.formatted
    causes = [[repr(each.original_error) for each in result.errors or ()] for result in (ours, theirs)]
    assert causes[0] == causes[1]
