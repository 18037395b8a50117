"""Expressions of Python as a loop over rows in the language of LLVM, compiled for the processor."""

import ast
import ctypes
from collections.abc import Callable, Iterable

_BINARY = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_COMPARE = {
    ast.Lt: "olt",
    ast.Gt: "ogt",
    ast.LtE: "ole",
    ast.GtE: "oge",
    ast.Eq: "oeq",
    ast.NotEq: "une",
}


class Code:
    """The body of a loop over rows, in the language of LLVM.

    Args:
        number: the type of all numbers, ``float`` or ``double``.
    """

    def __init__(self, number: str) -> None:
        self.number = number
        self.before: list[str] = []
        self.body: list[str] = []
        self.variables: dict[str, str] = {}
        self.booleans: set[str] = set()
        self.count = 0

    def load(
        self, name: str, array: str, columns: int, column: int, is_boolean: bool = False
    ) -> None:
        """Assign an element of the row of an array."""
        kind = "i8" if is_boolean else self.number
        value = self._new(f"load {kind}, ptr {self._element(kind, array, columns, column)}")
        if is_boolean:
            value = self._new(f"icmp ne i8 {value}, 0")
            self.booleans.add(value)
        self.variables[name] = value

    def store(self, name: str, array: str, columns: int, column: int) -> None:
        """Write a variable to an element of the row of an array; booleans as 0 and 1."""
        value = self._variable(name)
        if value in self.booleans:
            value = self._new(f"uitofp i1 {value} to {self.number}")
        place = self._element(self.number, array, columns, column)
        self.body.append(f"store {self.number} {value}, ptr {place}")

    def assign(self, name: str, expression: str) -> None:
        """Assign the value of an expression in Python's syntax."""
        self.variables[name] = self._value(ast.parse(expression, mode="eval").body)

    def text(self, parameters: Iterable[str]) -> str:
        """Return the function of first row, last row, constants and arrays."""
        arrays = ", ".join(f"ptr noalias %{name}" for name in parameters)
        lines = [
            f"declare {self.number} @llvm.fabs.{self._suffix}({self.number})",
            f"declare {self.number} @llvm.sqrt.{self._suffix}({self.number})",
            f"define void @kernel(i64 %start, i64 %stop, ptr %numbers, {arrays}) {{",
            "entry:",
            *self.before,
            "%some = icmp slt i64 %start, %stop",
            "br i1 %some, label %row, label %end",
            "row:",
            "%i = phi i64 [ %start, %entry ], [ %next, %row ]",
            *self.body,
            "%next = add nsw i64 %i, 1",
            "%more = icmp slt i64 %next, %stop",
            "br i1 %more, label %row, label %end",
            "end:",
            "ret void",
            "}",
        ]
        return "\n".join(lines)

    @property
    def _suffix(self) -> str:
        return "f64" if self.number == "double" else "f32"

    def _new(self, instruction: str) -> str:
        self.count += 1
        self.body.append(f"%t{self.count} = {instruction}")
        return f"%t{self.count}"

    def _element(self, kind: str, array: str, columns: int, column: int) -> str:
        row = self._new(f"mul nsw i64 %i, {columns}")
        index = self._new(f"add nsw i64 {row}, {column}")
        return self._new(f"getelementptr {kind}, ptr %{array}, i64 {index}")

    def _variable(self, name: str) -> str:
        if name not in self.variables:  # a constant
            place = 0 if name == "seed" else 1 + int(name.removeprefix("c"))
            self.before += [
                f"%{name}.place = getelementptr double, ptr %numbers, i64 {place}",
                f"%{name}.double = load double, ptr %{name}.place",
            ]
            self.variables[name] = f"%{name}.double"
            if self.number == "float":
                self.before.append(f"%{name} = fptrunc double %{name}.double to float")
                self.variables[name] = f"%{name}"
        return self.variables[name]

    def _value(self, node: ast.expr) -> str:
        match node:
            case ast.Name(name):
                return self._variable(name)
            case ast.Constant(value):
                return repr(float(value))
            case ast.UnaryOp(ast.USub(), operand):
                return self._new(f"fneg {self.number} {self._value(operand)}")
            case ast.UnaryOp(ast.Not(), operand):
                return self._boolean(f"xor i1 {self._value(operand)}, true")
            case ast.BinOp(left, operator, right):
                a, b = self._value(left), self._value(right)
                return self._new(f"{_BINARY[type(operator)]} {self.number} {a}, {b}")
            case ast.Compare(left, [operator], [right]):
                a, b = self._value(left), self._value(right)
                return self._boolean(f"fcmp {_COMPARE[type(operator)]} {self.number} {a}, {b}")
            case ast.BoolOp(operator, [left, right]):
                name = "and" if isinstance(operator, ast.And) else "or"
                return self._boolean(f"{name} i1 {self._value(left)}, {self._value(right)}")
            case ast.IfExp(test, body, other):
                test, a, b = self._value(test), self._value(body), self._value(other)
                return self._new(f"select i1 {test}, {self.number} {a}, {self.number} {b}")
            case ast.Call(ast.Name(name), [argument]):
                intrinsic = {"abs": "fabs", "sqrt": "sqrt"}[name]
                call = f"call {self.number} @llvm.{intrinsic}.{self._suffix}"
                return self._new(f"{call}({self.number} {self._value(argument)})")
        raise NotImplementedError(ast.unparse(node))

    def _boolean(self, instruction: str) -> str:
        value = self._new(instruction)
        self.booleans.add(value)
        return value


def compiled(source: str, arrays: int) -> Callable[..., None]:
    """Compile a function for this processor."""
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
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, *pointers)
    function = kind(engine.get_function_address("kernel"))
    function.engine = engine  # which owns the code
    return function
