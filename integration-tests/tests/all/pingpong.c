/* Prints, from rank 0, half the best round trip of 8 bytes in nanoseconds, and the best bandwidth of 4 MiB in MB/s:
 * pingpong [BATCHES] */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SMALL = 8, LARGE = 4 << 20 };

static int batches = 20;

static double round_trip(char *buffer, int size, int rank, int repeats) {
  double best = 1e9;
  for (int batch = 0; batch < batches; batch++) {
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    for (int i = 0; i < repeats; i++) {
      if (rank == 0) {
        MPI_Send(buffer, size, MPI_CHAR, 1, 0, MPI_COMM_WORLD);
        MPI_Recv(buffer, size, MPI_CHAR, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      } else {
        MPI_Recv(buffer, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(buffer, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
      }
    }
    double took = (MPI_Wtime() - start) / repeats;
    if (took < best) best = took;
  }
  return best;
}

int main(int argc, char **argv) {
  int rank, size;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size != 2) {
    fprintf(stderr, "%d ranks, not 2\n", size);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  if (argc > 1) batches = atoi(argv[1]);
  char *buffer = calloc(1, LARGE);
  double small = round_trip(buffer, SMALL, rank, 100);
  double large = round_trip(buffer, LARGE, rank, 4);
  if (rank == 0) {
    printf("%.0f %.0f\n", small / 2 * 1e9, LARGE / (large / 2) / 1e6);
    fflush(stdout);
  }
  MPI_Barrier(MPI_COMM_WORLD);
#ifdef MPICH_VERSION
  /* Debian 12's MPICH hangs in MPI_Finalize now and then where there is more than one node. */
  _exit(0);
#endif
  MPI_Finalize();
  return 0;
}
