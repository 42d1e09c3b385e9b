if(ROOM_TEST)
  find_library(CPP_HTTPLIB cpp-httplib REQUIRED)
  target_link_libraries(${ROOM_TEST} PRIVATE ${CPP_HTTPLIB})  # a real server for the staging tests
endif()
