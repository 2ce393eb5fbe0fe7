"""A contestant without a framework: it counts how often it was asked."""


class Counter:
    def __init__(self, step, most):
        self.step, self.most, self.calls = step, most, 0

    def run(self):
        self.calls += self.step
        if self.calls > self.most:
            raise RuntimeError("counted enough")
        return self.calls

    def describe(self, result):
        return {"calls": result}

    def gflop(self):
        return {}

    def device_peak(self):
        return None


def build(case):
    if not case.classes:
        raise ValueError("no classes")
    print("frameworks print to standard output, too")
    return Counter(case.steps, case.settings.get("most", 1000))
