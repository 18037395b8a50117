"""Expressions of Python as a loop over rows in the language of LLVM, compiled for the processor."""

import ast
import ctypes
import functools
import struct
from collections.abc import Callable, Iterable, Iterator

from det_losses.tracing.functions import FUNCTIONS, power

_BINARY = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_COMPARE = {
    ast.Lt: "olt",
    ast.Gt: "ogt",
    ast.LtE: "ole",
    ast.GtE: "oge",
    ast.Eq: "oeq",
    ast.NotEq: "une",
}
_SUFFIXES = {"float": "f32", "double": "f64"}
_INTRINSICS = {  # name -> LLVM's name, the number of operands
    "abs": ("fabs", 1),
    "copysign": ("copysign", 2),
    "floor": ("floor", 1),
    "muladd": ("fmuladd", 3),  # one or two roundings
    "sqrt": ("sqrt", 1),
}


class Code:
    """The body of a loop over rows, in the language of LLVM.

    Args:
        number: the type of all numbers, ``float`` or ``double``.

    Attributes:
        number: the type.
        before: the instructions before the loop, which load constants.
        body: the instructions of the loop.
        variables: what is assigned to each name.
        booleans: the values of type ``i1``.
        count: the number of values in the loop.
    """

    def __init__(self, number: str) -> None:
        self.number = number
        self.before: dict[str, None] = {}
        self.body: list[str] = []
        self.variables: dict[str, str] = {}
        self.booleans: set[str] = set()
        self.count = 0

    def load(
        self, name: str, array: str, columns: int, column: int, is_boolean: bool = False
    ) -> None:
        """Assign an element of the row of an array."""
        kind = "i8" if is_boolean else self.number
        value = self.add(f"load {kind}, ptr {self._element(kind, array, columns, column)}")
        if is_boolean:
            value = self._boolean(f"icmp ne i8 {value}, 0")
        self.variables[name] = value

    def store(self, name: str, array: str, columns: int, column: int) -> None:
        """Write a variable to an element of the row of an array; booleans as 0 and 1."""
        value = self._variable(name)
        if value in self.booleans:
            value = self.add(f"uitofp i1 {value} to {self.number}")
        place = self._element(self.number, array, columns, column)
        self.body.append(f"store {self.number} {value}, ptr {place}")

    def assign(self, name: str, expression: str) -> None:
        """Assign the value of an expression in Python's syntax."""
        self.variables[name] = self.value(expression)

    def value(self, expression: str, **values: str) -> str:
        """Return the value of an expression in Python's syntax, whose names may be values."""
        return self._value(_parsed(expression), values)

    def add(self, instruction: str) -> str:
        """Add an instruction, and return its value."""
        self.count += 1
        self.body.append(f"%t{self.count} = {instruction}")
        return f"%t{self.count}"

    def text(self, parameters: Iterable[str]) -> str:
        """Return the function of the number of rows, the constants and the arrays."""
        arrays = ", ".join(f"ptr noalias %{name}" for name in parameters)
        lines = [
            *_declarations(),
            f"define void @kernel(i64 %rows, ptr %numbers, {arrays}) {{",
            "entry:",
            *self.before,
            "%some = icmp slt i64 0, %rows",
            "br i1 %some, label %row, label %end",
            "row:",
            "%i = phi i64 [ 0, %entry ], [ %next, %row ]",
            *self.body,
            "%next = add nsw i64 %i, 1",
            "%more = icmp slt i64 %next, %rows",
            "br i1 %more, label %row, label %end",
            "end:",
            "ret void",
            "}",
        ]
        return "\n".join(lines)

    def _element(self, kind: str, array: str, columns: int, column: int) -> str:
        row = self.add(f"mul nsw i64 %i, {columns}")
        index = self.add(f"add nsw i64 {row}, {column}")
        return self.add(f"getelementptr {kind}, ptr %{array}, i64 {index}")

    def _variable(self, name: str) -> str:
        if name in self.variables:
            return self.variables[name]
        place = 0 if name == "seed" else 1 + int(name.removeprefix("c"))  # of a constant
        lines = [
            f"%{name}.place = getelementptr double, ptr %numbers, i64 {place}",
            f"%{name}.double = load double, ptr %{name}.place",
        ]
        if self.number == "float":
            lines.append(f"%{name}.float = fptrunc double %{name}.double to float")
        self.before.update(dict.fromkeys(lines))
        return f"%{name}.{self.number}"

    def _value(self, node: ast.expr, values: dict[str, str]) -> str:
        match node:
            case ast.Name("nan" | "inf" as name):
                return self._constant(float(name))
            case ast.Name(name):
                return values[name] if name in values else self._variable(name)
            case ast.Constant(value):
                return self._constant(value)
            case ast.IfExp(test, body, other):
                test, a, b = (self._value(each, values) for each in (test, body, other))
                return self.add(f"select i1 {test}, {self.number} {a}, {self.number} {b}")
            case ast.Call(ast.Name("power"), [base, exponent]):
                return self._power(self._value(base, values), exponent)
            case ast.UnaryOp(operator, operand):
                operands = [operand]
            case ast.BinOp(left, operator, right) | ast.Compare(left, [operator], [right]):
                operands = [left, right]
            case ast.BoolOp(operator, [_, _] as operands) | ast.Call(ast.Name(operator), operands):
                pass
            case _:
                raise NotImplementedError(ast.unparse(node))
        return self._operation(operator, [self._value(each, values) for each in operands])

    def _operation(self, operator: ast.AST | str, operands: list[str]) -> str:
        number = self.number
        match operator:
            case ast.USub():
                return self.add(f"fneg {number} {operands[0]}")
            case ast.Not():
                return self._boolean(f"xor i1 {operands[0]}, true")
            case ast.And() | ast.Or():
                name = type(operator).__name__.lower()
                return self._boolean(f"{name} i1 {', '.join(operands)}")
            case ast.operator():
                return self.add(f"{_BINARY[type(operator)]} {number} {', '.join(operands)}")
            case ast.cmpop():
                compare = f"fcmp {_COMPARE[type(operator)]} {number}"
                return self._boolean(f"{compare} {', '.join(operands)}")
            case _ if operator in FUNCTIONS:
                return FUNCTIONS[operator](self, *operands)
        arguments = ", ".join(f"{number} {operand}" for operand in operands)
        name = f"@llvm.{_INTRINSICS[operator][0]}.{_SUFFIXES[number]}"
        return self.add(f"call {number} {name}({arguments})")

    def _power(self, base: str, exponent: ast.expr) -> str:
        """Compute in float64, also because the exponent is not rounded to float32."""
        if self.number == "double":
            return power(self, base, self._value(exponent, {}))
        base, self.number = self.add(f"fpext float {base} to double"), "double"
        value = power(self, base, self._value(exponent, {}))
        self.number = "float"
        return self.add(f"fptrunc double {value} to float")

    def _constant(self, value: float) -> str:
        """Return a number in hexadecimal; LLVM takes no decimal that is rounded."""
        if self.number == "float":
            (value,) = struct.unpack("f", struct.pack("f", value))
        (bits,) = struct.unpack("Q", struct.pack("d", value))
        return f"0x{bits:016X}"

    def _boolean(self, instruction: str) -> str:
        value = self.add(instruction)
        self.booleans.add(value)
        return value


@functools.lru_cache(1000)
def _parsed(expression: str) -> ast.expr:
    return ast.parse(expression, mode="eval").body


def _declarations() -> Iterator[str]:
    for number, suffix in _SUFFIXES.items():
        for name, operands in _INTRINSICS.values():
            arguments = ", ".join([number] * operands)
            yield f"declare {number} @llvm.{name}.{suffix}({arguments})"


def compiled(source: str, arrays: int) -> Callable[..., None]:
    """Compile a function for this processor.

    Args:
        source: the function, in the language of LLVM.
        arrays: how many arrays it takes.
    """
    import llvmlite.binding as llvm  # 0.1 s, which a training on a GPU does not need

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # not known for this kind of processor
        features = ""
    machine = target.create_target_machine(llvm.get_host_cpu_name(), features, opt=3)
    module = llvm.parse_assembly(source)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    pointers = [ctypes.c_void_p] * (arrays + 1)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, *pointers)
    function = kind(engine.get_function_address("kernel"))
    function.engine = engine  # the code ends with it
    return function
