from itertools import combinations

import numpy as np
import pytest

from reweight_method_selection.coreset import cluster_sizes, greedy_medoids, most_central


def points(n, seed, dimensions=3):
    X = np.random.RandomState(seed).randn(n, dimensions)
    return np.linalg.norm(X[:, None] - X[None], axis=2)


def value(distances, chosen):
    """The objective of facility location: how much nearer all points are than the two farthest from each other."""
    return (distances.max() - distances[list(chosen)].min(0)).sum()


class TestGreedyMedoids:
    @pytest.mark.parametrize("seed", range(5))
    def test_each_point_is_the_best_addition_to_those_before_it(self, seed):
        distances = points(30, seed)
        chosen = greedy_medoids(distances, 12).tolist()

        assert len(set(chosen)) == 12
        for k in range(12):
            others = [j for j in range(30) if j not in chosen[:k]]
            best = max(value(distances, [*chosen[:k], j]) for j in others)
            assert value(distances, chosen[: k + 1]) == pytest.approx(best)

    @pytest.mark.parametrize("seed", range(10))
    def test_the_value_is_near_the_best_of_all_choices_of_eight_points(self, seed):
        distances = points(8, seed)
        for count in range(1, 9):
            found = value(distances, greedy_medoids(distances, count))
            best = max(value(distances, chosen) for chosen in combinations(range(8), count))
            # the bound of Nemhauser, Wolsey & Fisher 1978
            assert (1 - 1 / np.e) * best <= found <= best + 1e-9
            if count in (1, 7, 8):
                assert found >= 0.99 * best

    def test_one_of_each_cluster_comes_first(self):
        X = np.concatenate(
            [center + 0.01 * np.random.RandomState(0).randn(10, 2) for center in ([0, 0], [5, 0], [0, 9])]
        )
        chosen = greedy_medoids(np.linalg.norm(X[:, None] - X[None], axis=2), 3)

        assert sorted(chosen // 10) == [0, 1, 2]

    def test_points_that_are_all_the_same_are_taken_in_order(self):
        assert greedy_medoids(np.zeros((5, 5)), 3).tolist() == [0, 1, 2]


class TestMostCentral:
    def test_an_outlier_comes_last_and_the_middle_first(self):
        X = np.array([0.0, 10.0, 1.0, 2.0, 1.1])
        distances = np.abs(X[:, None] - X[None])

        assert most_central(distances, 5).tolist() == [4, 2, 3, 0, 1]
        assert most_central(distances, 2).tolist() == [4, 2]

    def test_it_is_what_a_greedy_algorithm_takes_for_which_old_values_are_bounds(self):
        """A list of total values that is never brought up to date, as in the official code."""
        distances = points(40, 1)
        similarity = distances.max() - distances
        waiting = sorted((-similarity[j].sum(), j) for j in range(40))
        covered, accepted = np.zeros(40), []
        while len(accepted) < 20:
            (_, j), rest = waiting[0], waiting[1:]
            total = np.maximum(covered, similarity[j]).sum()
            if rest and total < -rest[0][0]:
                waiting = sorted([*rest, (-total, j)])
                continue
            waiting, covered = rest, np.maximum(covered, similarity[j])
            accepted.append(j)

        assert accepted == most_central(distances, 20).tolist()


class TestClusterSizes:
    def test_every_point_belongs_to_the_nearest_medoid(self):
        distances = points(30, 0)
        medoids = np.array([4, 17, 2])
        owner = [min(range(3), key=lambda m, i=i: distances[i, medoids[m]]) for i in range(30)]

        assert cluster_sizes(distances, medoids).tolist() == [owner.count(m) for m in range(3)]

    def test_a_medoid_owns_itself_also_where_another_is_at_the_same_place(self):
        assert cluster_sizes(np.zeros((4, 4)), np.array([2, 1])).tolist() == [3, 1]

    def test_all_points_chosen_count_once(self):
        assert cluster_sizes(points(6, 3), np.arange(6)).tolist() == [1] * 6
